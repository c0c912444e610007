"""The trackers of a training: their processes, seen from the training's side. Nothing here waits
for one of them, but for a bounded time at the end."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cpsae
from cpsae.errors import CpsaeError, SettingsError, first_line
from cpsae.events import Event, Note, OnEvent
from cpsae.tracking import PROJECT, TRACKERS
from cpsae.tracking.state import Sent

_FINISHED_SECONDS, _STOPPED_SECONDS = 15.0, 3.0
"""For which the end of a training waits for its trackers: where it is finished, and where it was
stopped. They then go on by themselves."""
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Tracking:
    """Where runs are to be shown."""

    trackers: tuple[str, ...] = ()
    project: str | None = None
    """Under which name; None: as the tracker's own variables say, else `cpsae`."""
    group: str | None = None
    """The name of the sweep that they are of."""


def tracking(trackers: str | Sequence[str], project: str | None = None) -> Tracking:
    """trackers: names, one by one or joined by commas. Raises SettingsError for one that there is
    not, and for one that is not installed."""
    given = [trackers] if isinstance(trackers, str) else list(trackers)
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TRACKERS:
            raise SettingsError(
                f"--track: '{name}' is no tracker; take {', '.join(TRACKERS)}, or several of them"
            )
        if not _is_installed(TRACKERS[name]):
            raise SettingsError(
                f"--track {name}: the package {TRACKERS[name]} is not installed; run `pip install "
                f"{TRACKERS[name]}`, or leave --track out: metrics.jsonl is written all the same"
            )
    return Tracking(tuple(dict.fromkeys(names)), project)


class Shown:
    """Runs that are being shown."""

    def __init__(self, processes: "Sequence[_Process]", on_event: OnEvent) -> None:
        self.finished = False
        """To be set where they have come to their end: what is left is then waited for longer."""
        self._processes, self._on_event = processes, on_event

    def listen(self, event: Event) -> None:
        """Pass on what is heard, and look after the trackers."""
        self._on_event(event)
        for process in self._processes:
            process.look()

    def end(self) -> None:
        """Tell the trackers that the training is over, and wait for them a moment."""
        for process in self._processes:
            process.let_go()
        seconds = _FINISHED_SECONDS if self.finished else _STOPPED_SECONDS
        limit = time.monotonic() + seconds
        for process in self._processes:
            process.await_end(limit)


@contextmanager
def shown_in(tracking: Tracking, runs: Sequence[Path], on_event: OnEvent) -> Iterator[Shown]:
    """Show runs in these trackers until the block ends, from the moment on when each one's
    config.json is there; what was logged before is handed on too."""
    shown = Shown(
        [_Process(name, tracking, runs, on_event) for name in tracking.trackers], on_event
    )
    try:
        yield shown
    finally:
        shown.end()


class _Process:
    """One tracker's."""

    def __init__(
        self, tracker: str, tracking: Tracking, runs: Sequence[Path], on_event: OnEvent
    ) -> None:
        self._tracker, self._runs, self._on_event = tracker, runs, on_event
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # its process may outlive the block
        spec = {
            "tracker": tracker,
            "project": tracking.project,
            "runs": [
                {"folder": str(run.absolute()), "name": run.name, "group": tracking.group}
                for run in runs
            ],
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cpsae.tracking.sidecar"],
                stdin=subprocess.PIPE,
                stdout=self._said,
                stderr=self._said,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is the training's
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(spec).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            self._give_up(first_line(error))
            return
        on_event(Note(_where(tracker, tracking, runs)))

    def look(self) -> None:
        """Say, once, where it has failed."""
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process.returncode)

    def let_go(self) -> None:
        """Tell it that the training is over."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def await_end(self, limit: float) -> None:
        """Wait for it till `limit`, of the monotonic clock."""
        while self._process is not None and time.monotonic() < limit:
            self.look()
            time.sleep(_LOOK_SECONDS)
        if self._process is not None:
            self._on_event(
                Note(
                    f"{self._tracker} has not taken everything yet; process {self._process.pid} "
                    "goes on with it for five minutes at most",
                    "warning",
                )
            )

    def _ended(self, code: int) -> None:
        self._process = None
        if code:
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            self._give_up(lines[-1] if lines else f"it ended with {code}")
            return
        for run in self._runs:
            with suppress(CpsaeError):
                url = Sent.read(run, self._tracker).url
                if url:
                    self._on_event(Note(f"{self._tracker}: {url}"))

    def _give_up(self, reason: str) -> None:
        self._process = None
        self._on_event(
            Note(
                f"{self._tracker} stopped ({reason}); the run is not touched by that, and its "
                "metrics.jsonl has everything: the same command again hands on what is missing",
                "warning",
            )
        )


def _where(tracker: str, tracking: Tracking, runs: Sequence[Path]) -> str:
    project = tracking.project or PROJECT
    if tracker == "tensorboard":
        return f"tensorboard: look with `tensorboard --logdir {runs[0].parent}`"
    if tracker == "trackio":
        return f"trackio: look with `trackio show --project {project}`"
    return f"{tracker}: project {tracking.project or os.environ.get('WANDB_PROJECT') or PROJECT}"


def _is_installed(module: str) -> bool:
    """A folder of that name in the present one (wandb makes one) is no package."""
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def _environment() -> dict[str, str]:
    """This one, with this cpsae to be found, after whatever else is."""
    home = str(Path(cpsae.__path__[0]).parent)
    paths = [path for path in (os.environ.get("PYTHONPATH"), home) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
