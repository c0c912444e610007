"""Runs found and read, for whoever puts them beside each other."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpsae.durable import is_aside, local_folder
from cpsae.errors import RunError
from cpsae.json_files import parse_object, read_object
from cpsae.reporting.runs import SOURCE, Run
from cpsae.training.recorded import Recorded
from cpsae.training.run_folder import SWEEP, RunFolder
from cpsae.training.sweep import OF_THE_MACHINE

_NO_FIGURES = ("density", "store_identity")
"""What stands in evaluation.json beside figures."""


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders at or below each of `paths`, numbers in their names in the order of numbers, each
    once. Below a path, what `--fresh` set aside is left out. Raises RunError where a path is no
    folder or holds no run."""
    found: dict[Path, Path] = {}
    for path in paths:
        folder = local_folder(path, "run folder", RunError)
        if not folder.is_dir():
            raise RunError(f"{folder}: no such folder; give runs, or folders that runs are in")
        runs = [folder] if RunFolder(folder).started else list(_runs_below(folder))
        if not runs:
            raise RunError(
                f"{folder}: holds no run; give a folder that `cpsae fit` wrote, or one that such "
                "folders are in"
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_below(folder: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        entered = here.resolve() not in seen  # links may run in a circle
        seen.add(here.resolve())
        is_run = entered and "config.json" in files and _is_of_a_fit(here / "config.json")
        if is_run:
            yield here
        if is_run or not entered or "zarr.json" in files:  # a store is thousands of files
            folders.clear()
        wanted = [f for f in folders if not f.startswith(".") and not is_aside(here / f)]
        folders[:] = sorted(wanted, key=_by_number)


def _by_number(name: str) -> list[str | float]:
    """k=8 comes before k=16."""
    pieces = re.split(r"(\d+(?:\.\d+)?)", name)
    return [float(piece) if number % 2 else piece for number, piece in enumerate(pieces)]


def _is_of_a_fit(config: Path) -> bool:
    """Whether a config.json is a run's, and not a language model's; a damaged one counts, so that
    it is told of."""
    try:
        return {"settings", "store"} <= parse_object(config.read_bytes()).keys()
    except (OSError, ValueError):
        return True


def read_run(path: Path) -> Run:
    """What the files of a run say. Raises RunError where they are damaged."""
    folder = RunFolder(path)
    known = Recorded.of(folder.read_config(), path)
    run = Run(
        path=folder.path,
        preset=known.preset,
        kind=known.kind,
        settings=_settings(known),
        d=known.d,
        n=known.n,
        steps=known.steps,
        trained_on=None if known.source else known.store_identity,
        measured_on=known.store_identity,
        has_model=known.has_model,
        state="finished" if folder.complete else _unfinished(folder.path),
    )
    return _measured(run, folder) if run.finished else run


def _settings(known: Recorded) -> dict[str, Any]:
    if known.source is not None:
        return {**known.settings, SOURCE: known.source["files"][-1]["sha256"][:8]}
    return {k: v for k, v in known.settings.items() if k not in (*OF_THE_MACHINE, "steps")}


def _measured(run: Run, folder: RunFolder) -> Run:
    """The run with its figures. evaluation.json is written again by `cpsae evaluate`."""
    figures = folder.read_summary()
    advice = f"`cpsae evaluate {run.path}` mends it"
    if folder.evaluation.exists():
        figures |= read_object(folder.evaluation, RunError, advice)
    measured_on = figures.get("store_identity", run.measured_on)
    if not isinstance(measured_on, str | None):
        raise RunError(f"{folder.evaluation}: store_identity is {measured_on!r}; {advice}")
    figures = {name: value for name, value in figures.items() if name not in _NO_FIGURES}
    return Run(**{**vars(run), "measured_on": measured_on, "figures": figures})


def _unfinished(path: Path) -> str:
    """`diverged` where the sweep that a run is of gave it up, else `unfinished`."""
    sweep = path.parent / SWEEP
    if not sweep.exists():
        return "unfinished"
    members = read_object(sweep, RunError, "run the same sweep again").get("members", [])
    given_up = [m.get("folder") for m in members if isinstance(m, dict) and "error" in m]
    return "diverged" if path.name in given_up else "unfinished"
