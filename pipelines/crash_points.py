"""Shows that an extraction and a fit survive a power cut, and a kill, at every moment.

    OMP_NUM_THREADS=1 python pipelines/crash_points.py --out crash_points.json

Each is run once under a recorder (`crash_recorder.py`). For every operation on the disk it is
worked out what may be left (`crash_states.py`); every such state that differs from the others is
put on the disk, the same command runs again, and what it ends with is compared, byte for byte, with
what the undisturbed one gave. Of every kill, moreover, the power is cut after the second run has
ended: what it called complete must be durable, although the first one could not sync its last
operation.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from crash_recorder import ROOT, Cut, Recorder
from crash_states import State, changes, key_of, read_state, states, write_state
from tiny_subjects import EXTRACTION, FIT, make_model, make_text

from cpsae.config import ExtractSettings
from cpsae.errors import CpsaeError
from cpsae.stages.extract import extract
from cpsae.stages.fit import fit
from cpsae.training.settings import FitSettings

_TIMES = {"seconds", "rows_per_second", "checksum", "log"}
"""What differs from run to run; the checksums are of the seconds too."""
Run = Callable[[Path], object]
"""Runs a stage in a folder, from whatever is in it."""


@dataclass
class Outcome:
    """What came of one stage."""

    stage: str
    cut_points: int = 0
    states: int = 0
    """Those that differ, of all cut points."""
    tried: int = 0
    recovered: int = 0
    kills_made_durable: int = 0
    """Kills after which, once the second run has ended, a power cut takes nothing."""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def extraction_in(sources: Path) -> Run:
    """Of 20 chunks, into acts.zarr."""
    model, text = make_model(sources / "model"), make_text(sources / "text.jsonl")
    given = {"model": str(model), "dataset": str(text)}

    def run(folder: Path) -> object:
        store = str(folder / "acts.zarr")
        return extract(ExtractSettings.model_validate({**EXTRACTION, **given, "store": store}))

    return run


def fit_on(store: Path) -> Run:
    """With three checkpoints, into the folder `run`."""

    def run(folder: Path) -> object:
        return fit(store, FitSettings.model_validate(FIT), out=folder / "run")

    return run


def without_times(state: State) -> State:
    """What must be equal: all but how long it took, and the lock of a writer that was killed."""
    return {
        path: _untimed(path, content)
        for path, content in state.items()
        if path.rpartition("/")[2] != ".lock"
    }


def _untimed(path: str, content: bytes | None) -> bytes | None:
    if content is None or not path.endswith(("metrics.jsonl", "state.json")):
        return content
    lines = content.splitlines() if path.endswith(".jsonl") else [content]
    try:
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    except ValueError:
        return content
    return json.dumps([{k: v for k, v in one.items() if k not in _TIMES} for one in found]).encode()


def without_leftovers(state: State) -> State:
    """Without what a writer has removed, but not durably: it is taken for no file of anybody."""
    return {path: content for path, content in state.items() if ".tmp" not in path}


def try_all(
    stage: str, run: Run, work: Path, limit: int | None, seed: int, say: Callable[[str], None]
) -> Outcome:
    """Every state of every cut point; with `limit`, so many of each sort, evenly chosen."""
    began = time.monotonic()
    outcome = Outcome(stage)
    recorder = Recorder(_fresh(work))
    with recorder.recording():
        run(work)
    expected = without_times(read_state(work))
    outcome.cut_points = len(recorder.cuts)
    found, kills = _distinct(recorder.cuts, random.Random(seed))
    outcome.states = len(found)
    say(f"{stage}: {outcome.cut_points} cut points, {len(found)} states that differ")
    for number, (label, state) in enumerate(_evenly(found, limit), start=1):
        outcome.tried += 1
        problem = _continue(run, state, _fresh(work), expected)
        outcome.recovered += problem is None
        outcome.failures += [] if problem is None else [f"{label}: {problem}"]
        if number % 50 == 0:
            say(f"{stage}: {number} states tried, {len(outcome.failures)} failed")
    chosen = _evenly(kills, limit)
    for label, cut in chosen:
        problem = _cut_after_the_end(run, cut, _fresh(work), expected)
        outcome.kills_made_durable += problem is None
        outcome.failures += [] if problem is None else [f"{label}, then a power cut: {problem}"]
    outcome.seconds = round(time.monotonic() - began, 1)
    say(
        f"{stage}: {outcome.recovered} of {outcome.tried} states recovered, "
        f"{outcome.kills_made_durable} of {len(chosen)} kills durable in the end"
    )
    return outcome


def _distinct(
    cuts: list[Cut], rng: random.Random
) -> tuple[list[tuple[str, State]], list[tuple[str, Cut]]]:
    """The states that differ, and the cuts whose kill leaves something to be made durable."""
    found: dict[int, tuple[str, State]] = {}
    kills: dict[int, tuple[str, Cut]] = {}
    for cut in cuts:
        for how, state in states(cut, rng):
            key = key_of(state)
            found.setdefault(key, (f"before {cut.before}, {how}", state))
            if how == "killed" and changes(cut):
                kills.setdefault(key, (f"killed before {cut.before}", cut))
    return list(found.values()), list(kills.values())


def _evenly(items: list[Any], limit: int | None) -> list[Any]:
    if limit is None or limit >= len(items):
        return items
    return [items[number * len(items) // limit] for number in range(limit)]


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _continue(run: Run, state: State, folder: Path, expected: State) -> str | None:
    """What is wrong with where the next run ends, if anything."""
    write_state(state, folder)
    try:
        with patch.object(os, "fsync", lambda _descriptor: None):
            run(folder)
    except CpsaeError as error:
        return f"refused: {error}"
    return _difference(without_times(read_state(folder)), expected)


def _cut_after_the_end(run: Run, cut: Cut, folder: Path, expected: State) -> str | None:
    """The same where the power is cut once the next run has ended."""
    seen = dict(states(cut, random.Random(0)))["killed"]
    write_state(seen, folder)
    recorder = Recorder(folder)
    paths = {ROOT: folder, **_paths(cut, ROOT, folder)}
    lost_names: dict[Path, set[str]] = {}
    for change in changes(cut):
        if change.after is not None:
            lost_names.setdefault(paths[change.folder], set()).add(change.name)
    lost_files = {
        paths[number]
        for number, content in cut.contents.items()
        if cut.durable_contents.get(number) != content
    }
    recorder.forget(lost_names, lost_files)
    try:
        with recorder.recording():
            run(folder)
    except CpsaeError as error:
        return f"refused: {error}"
    left = dict(states(recorder.cuts[-1], random.Random(0)))["all lost"]
    return _difference(without_leftovers(without_times(left)), expected)


def _paths(cut: Cut, folder: int, path: Path) -> dict[int, Path]:
    found = {}
    for name, number in cut.names.get(folder, {}).items():
        found[number] = path / name
        found |= _paths(cut, number, path / name)
    return found


def _difference(found: State, expected: State) -> str | None:
    for path in sorted({*found, *expected}):
        if path not in found:
            return f"{path} is gone"
        if path not in expected:
            return f"{path} is left over"
        if found[path] != expected[path]:
            return f"{path} has other bytes"
    return None


def try_stages(
    scratch: Path, limit: int | None, seed: int = 0, say: Callable[[str], None] = print
) -> list[Outcome]:
    """Both stages, in a scratch folder."""
    sources = _fresh(scratch / "sources")
    run = extraction_in(sources)
    outcomes = [try_all("extract", run, scratch / "work", limit, seed, say)]
    run(sources)
    trained = fit_on(sources / "acts.zarr")
    return [*outcomes, try_all("fit", trained, scratch / "work", limit, seed, say)]


def main(arguments: Iterable[str] | None = None) -> int:
    """Exit code 1 where a state was not recovered from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--limit", type=int, help="so many states of each sort; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="a folder in memory makes it quicker")
    parser.add_argument("--out", type=Path, default=Path("crash_points.json"))
    options = parser.parse_args(None if arguments is None else list(arguments))
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        outcomes = try_stages(Path(scratch), options.limit, options.seed)
    options.out.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.stage}: {failure}")
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
