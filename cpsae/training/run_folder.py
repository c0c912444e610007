"""The run folder: the path of every file in it, its configuration, and its log of metrics."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import safetensors.torch
import torch
from safetensors import SafetensorError

from cpsae.config.resolve import differences
from cpsae.durable import disk_errors, is_leftover, local_folder, settle, write_atomic
from cpsae.errors import DifferentSettingsError, RunError, first_line
from cpsae.json_files import read_object, write_object
from cpsae.store import Store
from cpsae.training.checkpoint import Checkpoint, remove_unfinished, step_name, step_of
from cpsae.training.facts import Facts
from cpsae.training.recipes import known_to_0_1, with_newer
from cpsae.training.settings import FitSettings

_ADVICE = "give a folder that `cpsae fit` wrote"
SWEEP = "sweep.json"
"""What stands beside the runs of a sweep."""
REPORT = "report.html"
"""The page about a run in its folder, or about a sweep in its own."""

# Settings that change neither the weights nor the files that are compared between runs.
_FREE = ("device", "split", "checkpoint_every", "keep_checkpoints")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = local_folder(path, "run folder", RunError)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.evaluation = self.path / "evaluation.json"
        self.start = self.path / "start.safetensors"
        self.checkpoints = self.path / "checkpoints"
        self.finished = self.path / "finished"
        """Where the files of a finished run are kept when it goes on."""

    @property
    def started(self) -> bool:
        """Whether a fit was begun here."""
        return self.config.exists()

    @property
    def complete(self) -> bool:
        """Whether it was finished: the summary is written last."""
        return self.summary.exists()

    def kept(self, step: int) -> "RunFolder":
        """Where its files are kept as they were when it was finished at `step`."""
        return RunFolder(self.finished / step_name(step))

    def finished_steps(self) -> list[int]:
        """The steps at which it was finished, the first first."""
        kept = [step_of(path.parent) for path in self.finished.glob("step-*/summary.json")]
        last = self.read_summary().get("steps") if self.complete else None  # converted: it has none
        return sorted({*kept, *([] if last is None else [int(last)])})

    @property
    def converted(self) -> bool:
        """Whether it holds what another program trained, which no fit can continue."""
        return self.started and "source" in self.read_config()

    def refuse_foreign(self) -> None:
        """Raises RunError where something else than a run of a fit is at this path."""
        if self.converted:
            raise RunError(
                f"{self.path}: was converted from another program's; to go on from it give it as "
                "--init, with another --out"
            )
        if self.started or not self.path.exists():
            return
        if not self.path.is_dir() or not all(map(self._is_beginning, self.path.iterdir())):
            raise RunError(f"{self.path}: is there already and is no run; choose another --out")

    def _is_beginning(self, path: Path) -> bool:
        """Whether a fit that was killed before it recorded its run may have left this behind."""
        return path == self.start or is_leftover(path)

    def tidy(self) -> None:
        """Remove what a killed writer left half-written, and make durable what it named last. For
        who holds the lock."""
        for folder in (self.checkpoints, self.finished):
            remove_unfinished(folder)
        settle(self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record what the run is."""
        write_object(self.config, config)

    def read_config(self) -> dict[str, Any]:
        """Raises RunError where this is no run or its config.json is broken."""
        if not self.path.is_dir():
            raise RunError(f"{self.path}: no such run; give a folder that `cpsae fit` wrote")
        if (self.path / SWEEP).exists():
            runs = ", ".join(sorted(p.parent.name for p in self.path.glob("*/config.json")))
            raise RunError(f"{self.path}: is a sweep; give one of its runs ({runs})")
        return read_object(self.config, RunError, _ADVICE)

    def facts(self) -> Facts:
        """What the run was begun with. Raises RunError where that was not recorded."""
        try:
            return Facts.from_json(self.read_config()["facts"])
        except (KeyError, TypeError, ValueError):
            raise RunError(
                f"{self.config}: does not say what the run was begun with (an older cpsae did not "
                "record it); finish it with the release that began it, or use --fresh"
            ) from None

    def write_start(self, start: Mapping[str, torch.Tensor]) -> str:
        """Record what the store says of the weights before the first update. The CRC-32C (hex) of
        the file, for `config.json`."""
        content = safetensors.torch.save(dict(start))
        write_atomic(self.start, content)
        return f"{google_crc32c.value(content):08x}"

    def read_start(self) -> dict[str, torch.Tensor]:
        """Raises RunError where it is missing or broken."""
        expected = self.read_config().get("start_crc32c")  # earlier versions recorded none
        try:
            content = self.start.read_bytes()
            if expected not in (None, f"{google_crc32c.value(content):08x}"):
                raise ValueError("its checksum does not match its content")
            return safetensors.torch.load(content)
        except (OSError, SafetensorError, ValueError) as error:
            raise RunError(
                f"{self.start}: cannot be read ({first_line(error)}); use --fresh"
            ) from None

    def read_summary(self) -> dict[str, Any]:
        """Of a complete run. Raises RunError where it is broken."""
        return read_object(self.summary, RunError, _ADVICE)

    def refuse_damaged_log(self, checkpoint: Checkpoint, log_every: int) -> None:
        """Raises RunError where the lines that were there at a checkpoint no longer are. A log that
        somebody removed is not missed."""
        expected = checkpoint.state.get("log")  # earlier versions recorded none
        if expected is None or not self.metrics.exists():
            return
        if log_checksum(self.metrics, checkpoint.step, log_every) != expected:
            folder = self.checkpoints / step_name(checkpoint.step)
            raise RunError(
                f"{self.metrics}: its lines up to step {checkpoint.step} are not what was written; "
                f"restore it from a copy, remove it to go on without them, or remove {folder} to "
                "continue from the checkpoint before, which writes them again"
            )

    def write_evaluation(
        self, content: Mapping[str, Any], store: Store, step: int | None = None
    ) -> tuple[Path, dict[str, Any]]:
        """Write evaluation.json, and which store it is of; of `step`, a file of its own. The file,
        and what it holds."""
        file, whole = self.evaluation, {**content, "store_identity": store.identity}
        if step is not None:
            file, whole = self.evaluation_of(step), {**whole, "step": step}
        write_object(file, whole)
        return file, whole

    def evaluation_of(self, step: int) -> Path:
        """What was measured after a step."""
        return self.path / f"evaluation-{step_name(step)}.json"

    def begun_from(self) -> dict[str, str] | None:
        """`path` and `fingerprint` of the run that this one goes on from, if any."""
        return self.read_config().get("init")

    def refuse_other(self, settings: FitSettings, store: Store, init: str | None = None) -> None:
        """Raises DifferentSettingsError, listing each, where the run was begun otherwise. init: the
        fingerprint of the run that it is to go on from."""
        config = self.read_config()
        recorded = config.get("settings", {})
        begun = _without_free(with_newer(recorded if "facts" in config else known_to_0_1(recorded)))
        asked = _without_free(settings.model_dump(mode="json"))
        if "facts" in config and asked["steps"] == self.facts().schedule.steps:
            asked["steps"] = begun["steps"]  # one epoch, in number
        different = differences(begun, asked)
        if config.get("store", {}).get("identity") != store.identity:
            different.append(f"store: not the one at {config.get('store', {}).get('path')}")
        from_run = config.get("init") or {}
        if from_run.get("fingerprint") != init:
            path = from_run.get("path")
            weights = f"the weights that {path} had" if path else "no other run's weights"
            different.append(f"--init: {weights}")
        if different:
            raise DifferentSettingsError(
                f"{self.path}: was begun with other settings ({'; '.join(different)}); "
                "give the same ones, another --out, or --fresh",
                different,
            )


class MetricsLog:
    """metrics.jsonl, open for appending after it was cut back to `step`."""

    def __init__(self, path: Path, step: int) -> None:
        write_atomic(path, *lines_up_to(path, step))
        self._path = path
        with disk_errors(path):
            # Unbuffered: readers see a line at once, and none waits for a disk that is full.
            self._file = path.open("ab", buffering=0)

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Add one line. Raises DiskError where the disk is full."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with disk_errors(self._path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Make all lines durable: before a checkpoint that presumes them."""
        with disk_errors(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_name(preset: str, settings: FitSettings, store: Store, init: str | None = None) -> str:
    """`<preset>-<8 hex of settings and store identity>`, the same for the same run; of what it goes
    on from too, where `init` is the fingerprint of that."""
    asked = json.dumps(_without_free(settings.model_dump(mode="json")), sort_keys=True)
    digest = hashlib.sha256((asked + store.identity + (init or "")).encode()).hexdigest()
    return f"{preset}-{digest[:8]}"


def _without_free(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _FREE}


def log_checksum(path: Path, step: int, log_every: int) -> str:
    """Number and CRC-32C (hex) of the lines of a log up to `step`, but for one that is there only
    because a shorter run ended with it."""
    count, checksum = 0, 0
    for line in lines_up_to(path, step):
        of = json.loads(line)["step"]
        if of == 1 or of % log_every == 0:
            count, checksum = count + 1, google_crc32c.extend(checksum, line)
    return f"{count} {checksum:08x}"


def lines_up_to(path: Path, step: int) -> Iterator[bytes]:
    """The lines of a log up to `step`. What follows was written after the checkpoint that is
    continued from, and may be damaged: a kill cuts a line short, a power cut more than that."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                wanted = line.endswith(b"\n") and json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                return
            if not wanted:
                return
            yield line
