"""Runs `cpsae extract` and `cpsae fit` under faults, and keeps a ledger of what came of each.

    OMP_NUM_THREADS=1 python pipelines/soak.py --faults 400 --out soak.json

After each fault it does what a user would: the same command again, and where that says what to do,
what it says, five times at most. Then every byte of the store, or of the run, is compared with
those of one that nothing disturbed. A command that is to fail must do so with one line and an exit
code. The same seed gives the same faults.
"""

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crash_points import without_times
from crash_states import State, read_state
from soak_faults import INTERRUPTIONS, RUN_DAMAGES, STORE_DAMAGES, operations
from soak_processes import Command, Ended, at_operation, run, sent
from tiny_subjects import EXTRACTION, FIT, make_model, make_text

_ROUNDS = 5
"""Commands after a fault, at most."""


@dataclass
class Trial:
    """One fault."""

    number: int
    stage: str
    sort: str
    target: str = ""
    """What was damaged."""
    commands: list[str] = field(default_factory=list)
    """What was run, and how it ended."""
    recovered: bool = False
    lost: list[str] = field(default_factory=list)
    """Files that are gone at the end."""
    wrong: list[str] = field(default_factory=list)
    """Files that have other bytes at the end, or were not there before."""
    tracebacks: int = 0
    silent: int = 0
    """Commands that failed without a line, or succeeded with damaged files."""


class Soak:
    """The model, the text, the finished store and run that all is compared with, and a place for
    those that are disturbed."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._in_a_process(lambda: make_model(scratch / "model"))
        make_text(scratch / "text.jsonl")
        self.place = scratch / "place"
        self.good = {"extract": scratch / "good.zarr", "fit": scratch / "good-run"}
        for stage in ("extract", "fit"):
            self.refresh(stage)
            ended = run(self.command(stage))
            if ended.code:
                raise RuntimeError(f"the undisturbed {stage} failed: {ended.output}")
            shutil.copytree(self.path(stage), self.good[stage])
        self.expected = {stage: _read(path) for stage, path in self.good.items()}

    def path(self, stage: str) -> Path:
        """Of the store, or of the run folder."""
        return self.place / ("acts.zarr" if stage == "extract" else "run")

    def refresh(self, stage: str) -> None:
        """Nothing is there but, for a fit, a whole store."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if stage == "fit":
            shutil.copytree(self.good["extract"], self.path("extract"))

    def command(self, stage: str, *more: str) -> list[str]:
        """The command line of a stage."""
        if stage == "extract":
            given = {**EXTRACTION, "model": self.scratch / "model", "store": self.path("extract")}
            given["dataset"] = self.scratch / "text.jsonl"
            return ["extract", *_options(given), *more]
        names = {"steps", "batch_size", "n_latents", "lr", "device"}
        options = _options({name: FIT[name] for name in FIT if name in names})
        options += [f"--set={name}={FIT[name]}" for name in FIT if name not in names]
        store, out = self.path("extract"), self.path("fit")
        return ["fit", f"--store={store}", f"--out={out}", *options, *more]

    def _in_a_process(self, work: Callable[[], object]) -> None:
        """Nothing is computed in this one, which others are forked from."""
        pid = os.fork()
        if pid == 0:
            try:
                work()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


def _options(values: dict[str, object]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def interrupted(soak: Soak, trial: Trial, rng: random.Random) -> None:
    """A command that something ends early, once or twice in a row."""
    soak.refresh(trial.stage)
    for _ in range(rng.choice([1, 1, 2])):
        prepare = INTERRUPTIONS[trial.sort](rng, operations(trial.stage))
        note(trial, trial.stage, run(soak.command(trial.stage), prepare))
    recover(soak, trial)


def damaged(soak: Soak, trial: Trial, rng: random.Random) -> None:
    """Files that are damaged, of a finished store or run, or of one that was stopped."""
    soak.refresh(trial.stage)
    path = soak.path(trial.stage)
    damages = STORE_DAMAGES if trial.stage == "extract" else RUN_DAMAGES
    part = (0.2, 0.26) if "first weights" in trial.sort else (0.55, 0.95)
    left_over = "leftovers" in trial.sort  # which a store that was finished has none of
    stopped = trial.stage == "fit" or left_over or rng.random() < 0.5
    if stopped:
        moment = int(rng.uniform(*part) * operations(trial.stage))
        run(soak.command(trial.stage), at_operation(moment, sent(signal.SIGKILL)))
    else:
        shutil.copytree(soak.good["extract"], path)
    trial.target = damages[trial.sort](rng, path)
    if trial.stage == "extract" and not stopped:
        _fit_on_damaged(soak, trial)
        note(trial, "verify", run(["verify", str(path)]))
    recover(soak, trial, suspicious=trial.stage == "extract")


def _fit_on_damaged(soak: Soak, trial: Trial) -> None:
    """It must find the damage before it learns from it, or not be touched by it."""
    ended = run(soak.command("fit"))
    note(trial, "fit", ended)
    if ended.code == 0:
        trial.silent += bool(_compare(soak, "fit")[1])


def together(soak: Soak, trial: Trial, rng: random.Random) -> None:
    """Another command while one is in the middle of its work."""
    soak.refresh(trial.stage)
    moment = at_operation(rng.randint(8, operations(trial.stage)), sent(signal.SIGSTOP))
    first = Command(soak.command(trial.stage), moment)
    if first.wait_until_stopped():
        others = {
            "two writers": soak.command(trial.stage),
            "verify while writing": ["verify", str(soak.path("extract"))],
            "fit while writing": soak.command("fit"),
            "info while writing": ["info", str(soak.path(trial.stage))],
        }
        ended = run(others[trial.sort])
        note(trial, others[trial.sort][0], ended)
        if trial.sort == "two writers":
            trial.silent += ended.code != 1 or "another process" not in ended.output
        if trial.sort == "verify while writing":
            trial.silent += "checksum" in ended.output or "missing" in ended.output
        first.go_on()
    note(trial, trial.stage, first.end(), may_fail=False)
    recover(soak, trial)


def recover(soak: Soak, trial: Trial, suspicious: bool = False) -> None:
    """Do what a user would, and compare what comes of it. suspicious: begin with a repair."""
    store = soak.path("extract")
    done = False
    for number in range(_ROUNDS):
        if suspicious and number == 0:
            ended, name = run(["verify", str(store), "--repair"]), "verify --repair"
        else:
            ended, name = run(soak.command(trial.stage)), trial.stage
        note(trial, name, ended)
        if ended.code == 0 and name == trial.stage:
            done = True
            break
        if ended.code != 0:
            _follow_advice(soak, trial, ended.output)
    trial.lost, trial.wrong = _compare(soak, trial.stage)
    trial.recovered = done and not trial.lost and not trial.wrong


def _follow_advice(soak: Soak, trial: Trial, output: str) -> None:
    """What the line of an error says."""
    path = soak.path(trial.stage)
    if "remove this folder" in output or "checkpoint before" in output:
        found = re.search(rf"{re.escape(str(path))}\S*/step-\d+", output)
        if found:
            shutil.rmtree(found[0])
            trial.commands.append("checkpoint removed")
    elif "from a copy" in output or "is no store" in output:
        for name in _damaged_names(output, path):
            _restore(soak, trial, name)
    elif "--repair" in output:
        note(trial, "verify --repair", run(["verify", str(soak.path("extract")), "--repair"]))
    elif "--fresh" in output or "give a folder that" in output:
        shutil.rmtree(path, ignore_errors=True)  # as --fresh, which keeps the old one aside
        trial.commands.append("begun afresh")


def _damaged_names(output: str, path: Path) -> list[str]:
    names = re.findall(r"[\w/]*(?:zarr\.json|tokens/c/\d+/0)", output.replace(f"{path}/", ""))
    return sorted(set(names)) or ["zarr.json"]


def _restore(soak: Soak, trial: Trial, name: str) -> None:
    target = soak.path("extract") / name
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(soak.good["extract"] / name, target)
    trial.commands.append(f"{name} restored")


def note(trial: Trial, name: str, ended: Ended, may_fail: bool = True) -> None:
    """Write down how a command ended, and judge it."""
    trial.commands.append(f"{name}: {ended.code}")
    trial.tracebacks += ended.traceback
    said = [line for line in ended.output.splitlines() if line.strip()]
    trial.silent += ended.code not in (0, -signal.SIGKILL) and not said
    trial.silent += ended.code != 0 and not may_fail
    if ended.code not in (0, -signal.SIGKILL):
        trial.commands[-1] += f" {said[-1] if said else ''}"


def _read(path: Path) -> State:
    """What must be equal of a store or a run: of its checkpoints the last, for one that is asked to
    stop leaves one there."""
    state = without_times(read_state(path))
    steps = sorted(name for name in state if re.fullmatch(r"checkpoints/step-\d+", name))
    return {k: v for k, v in state.items() if not k.startswith(tuple(steps[:-1]))}


def _compare(soak: Soak, stage: str) -> tuple[list[str], list[str]]:
    found, expected = _read(soak.path(stage)), soak.expected[stage]
    lost = sorted(expected.keys() - found.keys())
    wrong = [name for name in found if name not in expected or found[name] != expected[name]]
    return lost, sorted(wrong)


SORTS: dict[tuple[str, str], Callable[[Soak, Trial, random.Random], None]] = {
    **{(stage, sort): interrupted for stage in ("extract", "fit") for sort in INTERRUPTIONS},
    **{("extract", sort): damaged for sort in STORE_DAMAGES},
    **{("fit", sort): damaged for sort in RUN_DAMAGES},
    **{("extract", f"{what} while writing"): together for what in ("verify", "fit", "info")},
    **{(stage, "two writers"): together for stage in ("extract", "fit")},
}


def try_faults(
    scratch: Path, faults: int, seed: int = 0, say: Callable[[str], None] = print
) -> Iterator[Trial]:
    """So many trials: every sort in turn, those of a round in an order of chance."""
    _import_all()
    soak = Soak(scratch)
    order = random.Random(seed)
    sorts: Iterable[tuple[str, str]] = itertools.chain.from_iterable(
        order.sample(sorted(SORTS), len(SORTS)) for _ in itertools.count()
    )
    for number, (stage, sort) in enumerate(itertools.islice(sorts, faults)):
        trial = Trial(number, stage, sort)
        SORTS[stage, sort](soak, trial, random.Random(f"{seed} {number}"))
        if not trial.recovered or trial.tracebacks or trial.silent:
            say(f"fault {number}: {json.dumps(asdict(trial))}")
        elif number % 20 == 19:
            say(f"{number + 1} faults")
        yield trial


def _import_all() -> None:
    """What the commands import, so that a forked process has it already."""
    import transformers.models.llama.modeling_llama  # noqa: F401

    import cpsae.cli.extract
    import cpsae.cli.fit
    import cpsae.cli.info
    import cpsae.cli.main
    import cpsae.cli.verify
    import cpsae.stages.extract
    import cpsae.stages.fit  # noqa: F401


def ledger(trials: list[Trial]) -> dict[str, object]:
    """The sums that count."""
    by_sort = Counter(f"{trial.stage}: {trial.sort}" for trial in trials)
    return {
        "faults": len(trials),
        "sorts": len({trial.sort for trial in trials}),
        "recovered": sum(trial.recovered for trial in trials),
        "lost": sum(bool(trial.lost) or not trial.recovered for trial in trials),
        "wrong_bytes": sum(bool(trial.wrong) for trial in trials),
        "tracebacks": sum(trial.tracebacks for trial in trials),
        "silent": sum(trial.silent for trial in trials),
        "by_sort": dict(sorted(by_sort.items())),
    }


def table(trials: list[Trial]) -> str:
    """A row a sort."""
    rows = ["| fault | extract | fit | recovered | lost | wrong bytes | tracebacks |"]
    rows.append("|---|---|---|---|---|---|---|")
    for sort in sorted({trial.sort for trial in trials}):
        these = [trial for trial in trials if trial.sort == sort]
        stages = Counter(trial.stage for trial in these)
        found = ledger(these)
        counts = [found[key] for key in ("recovered", "lost", "wrong_bytes", "tracebacks")]
        cells = [sort, stages["extract"], stages["fit"], *counts]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main() -> int:
    """Exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faults", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="where to work; a folder in memory is quicker")
    parser.add_argument("--out", type=Path, default=Path("soak.json"))
    options = parser.parse_args()
    began = time.monotonic()
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for trial in try_faults(Path(scratch), options.faults, options.seed):
            trials.append(trial)
            found = {**ledger(trials), "seed": options.seed}
            found["seconds"] = round(time.monotonic() - began)
            found["trials"] = [asdict(one) for one in trials]
            options.out.write_text(json.dumps(found, indent=2) + "\n")
    sums = ledger(trials)
    print(table(trials))
    print({key: value for key, value in sums.items() if key != "by_sort"})
    return int(any(sums[key] for key in ("lost", "wrong_bytes", "tracebacks", "silent")))


if __name__ == "__main__":
    sys.exit(main())
