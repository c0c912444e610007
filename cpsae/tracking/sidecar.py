"""The process of one tracker: follows the metrics.jsonl of the runs that are trained, and hands on
what is new until the training's end of the pipe is closed.

Started by cpsae.tracking.process as `python -m cpsae.tracking.sidecar`: a line of JSON comes on
standard input, then nothing; what goes wrong is the last line of standard error.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cpsae.errors import BusyError, CpsaeError, RunError, first_line
from cpsae.json_files import object_at, read_object
from cpsae.locks import writer_lock
from cpsae.tracking.backends import BACKENDS, Backend, RunToTrack
from cpsae.tracking.field_names import hyper_parameters, of_step, of_summary
from cpsae.tracking.state import Sent

_SECONDS = 1.0
"""Between two looks at the logs."""
_LAST_SECONDS = 300.0
"""For which a tracker may go on alone once the training has ended."""
_SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN")


class _Followed:
    """A run in a tracker, as far as it has got."""

    def __init__(self, spec: Mapping[str, Any], tracker: str, project: str | None) -> None:
        self.folder, self.tracker = Path(spec["folder"]), tracker
        self._config = read_object(self.folder / "config.json", RunError, "fit the run again")
        self._batch_size = int(object_at(self._config, "settings").get("batch_size", 1))
        self.sent = Sent.read(self.folder, tracker)
        self._offset, self._inode = 0, -1
        self._about = {"name": spec["name"], "group": spec["group"], "project": project}
        self._backend: Backend | None = None

    def hand_on(self) -> None:
        """What is new in the log. Recorded before it is sent: killed in between, a step is missing
        in the tracker, where it would else be there twice."""
        lines = [line for line in self._new_lines() if line["step"] > self.sent.step]
        if not lines:
            return
        backend = self._opened()
        self.sent = self.sent.write(self.folder, self.tracker, step=lines[-1]["step"])
        for line in lines:
            backend.log(line["step"], of_step(line, self._batch_size))

    def end(self) -> None:
        """All that is left, and the summary of a run that is finished."""
        self.hand_on()
        figures: dict[str, float] = {}
        path = self.folder / "summary.json"
        if path.exists():
            figures = of_summary(read_object(path, RunError, "fit the run again"))
            steps = int(figures.get("evaluation/steps", self.sent.step))
            if steps > self.sent.summary_of:
                self.sent = self.sent.write(self.folder, self.tracker, summary_of=steps)
                self._opened().log(steps, figures)
        if self._backend is not None:
            self._backend.end(figures)

    def _opened(self) -> Backend:
        """The run in the tracker, begun when there is something to hand on."""
        if self._backend is None:
            run = RunToTrack(
                folder=self.folder,
                id=self.sent.id,
                sent=self.sent.step,
                hyper_parameters=hyper_parameters(self._config),
                **self._about,
            )
            self._backend = BACKENDS[self.tracker](run)
            self.sent = self.sent.write(self.folder, self.tracker, url=self._backend.url)
        return self._backend

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        """Whole lines since the last look; all of them where the log is another file now."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_ino != self._inode or about.st_size < self._offset:
                self._offset, self._inode = 0, about.st_ino
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


def main() -> None:
    """Follow, until the training is over."""
    spec = json.loads(sys.stdin.readline())
    try:
        _follow(spec)
    except BaseException as error:  # a tracker may raise whatever it likes, SystemExit too
        if isinstance(error, SystemExit) and not error.code:
            raise
        print(f"\n{reason(error)}", file=sys.stderr, flush=True)
        os._exit(1)  # whatever the tracker still wants to do at the end may hang
    os._exit(0)


def reason(error: BaseException) -> str:
    """One line, without what is secret."""
    text = first_line(error)
    if not isinstance(error, CpsaeError):
        text = f"{type(error).__name__}: {text}" if str(error) else type(error).__name__
    for name in _SECRETS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return re.sub(r"(write_token=)[^&\s]+", r"\1***", text)


def _follow(spec: Mapping[str, Any]) -> None:
    over = threading.Event()
    threading.Thread(target=_watch, args=[over], daemon=True).start()
    waiting = {Path(run["folder"]): run for run in spec["runs"]}
    with ExitStack() as locks:
        followed: list[_Followed] = []
        while True:
            last = over.wait(_SECONDS)
            for folder in [path for path in waiting if (path / "config.json").exists()]:
                lock = writer_lock(folder / "trackers" / f".{spec['tracker']}", "run")
                try:
                    locks.enter_context(lock)
                except BusyError:  # the process of an earlier training is about to end
                    if last:
                        raise
                    continue
                followed.append(_Followed(waiting.pop(folder), spec["tracker"], spec["project"]))
            for run in followed:
                run.hand_on()
            if last:
                break
        for run in followed:
            run.end()


def _watch(over: threading.Event) -> None:
    """Say when the training has closed its end of the pipe, or died; a tracker that hangs does not
    outlive it for long."""
    sys.stdin.read()
    over.set()
    time.sleep(_LAST_SECONDS)
    print(f"\nnot done {_LAST_SECONDS:.0f} s after the run's end", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
