"""A run as a comparison sees it, names that tell runs apart, and groups of seeds."""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

SEEDS = ("seed", "order_seed")
SOURCE = "source"
"""Beside the settings of a converted run: which file it was, as nothing else may tell it from
another one."""
_SEED_IN_NAME = re.compile(r"\b(order_)?seed=[^,]*")


@dataclass(frozen=True)
class Run:
    """What a run was asked for, and what came of it."""

    path: Path
    preset: str
    kind: str
    settings: dict[str, Any]
    """Dotted keys, without those that only say how a machine makes the run."""
    n: int
    steps: int | None
    """None of what another program trained."""
    trained_on: str | None
    """The identity of a store; None of what another program trained."""
    measured_on: str | None
    """The same; None where it was not measured."""
    has_model: bool = True
    """Whether its store names the language model that its rows are of."""
    state: str = "finished"
    """`finished`, `unfinished` or `diverged`."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What summary.json and evaluation.json hold, intervals too; nothing unless it is finished."""
    d: int | None = None
    """Width of a row."""

    @property
    def finished(self) -> bool:
        """Whether it has figures."""
        return self.state == "finished"

    @property
    def seeds(self) -> tuple[Any, ...]:
        """Of the initial weights, and of the order of rows."""
        return tuple(self.settings.get(key) for key in SEEDS)

    @property
    def method(self) -> str:
        """The preset, and its kind where the preset's name does not say it."""
        return self.preset if self.preset == self.kind else f"{self.preset} ({self.kind})"

    def value(self, name: str) -> float | None:
        """A figure; None where there is none."""
        match self.figures.get(name):
            case int() | float() as value:
                return float(value)
        return None

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a figure, where it was measured."""
        match self.figures.get(f"{name}_ci"):
            case [int() | float() as low, int() | float() as high]:
                return float(low), float(high)
        return None


class Spread(NamedTuple):
    """A figure over several seeds."""

    mean: float
    std: float
    """Standard deviation of a sample; 0 for one run."""
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in nothing but their seeds: often one alone."""

    name: str
    runs: list[Run]

    @property
    def first(self) -> Run:
        """One of the runs, for what all have in common."""
        return self.runs[0]

    def spread(self, name: str) -> Spread | None:
        """A figure over the runs; None unless each of them has it."""
        values = [value for run in self.runs if (value := run.value(name)) is not None]
        if len(values) < len(self.runs):
            return None
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return Spread(statistics.fmean(values), std, min(values), max(values))

    def bar(self, name: str) -> tuple[float, float] | None:
        """From where to where a figure may be: over several seeds from the smallest to the
        largest, of one run its 95 % interval, where it has one."""
        if len(self.runs) == 1:
            return self.first.interval(name)
        spread = self.spread(name)
        return spread and (spread.low, spread.high)


def group_by_seed(runs: Iterable[Run]) -> tuple[list[Group], list[tuple[Run, Run]]]:
    """The finished ones of `runs`, those that are alike but for their seeds together, in the order
    of the first of each; and pairs (run, an earlier one with the same seeds too): they are the same
    run twice, so the later one is in no group."""
    groups: dict[Any, dict[Any, Run]] = {}
    twice = []
    for run in runs:
        if run.finished:
            alike = groups.setdefault(_all_but_seeds(run), {})
            if run.seeds in alike:
                twice.append((run, alike[run.seeds]))
            else:
                alike[run.seeds] = run
    members = [list(group.values()) for group in groups.values()]
    names = distinct_names([_place_of(group) for group in members])
    return [
        Group(name if _is_plain(group) else f"{name} (and {len(group) - 1} more)", group)
        for name, group in zip(names, members, strict=True)
    ], twice


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """For each path as many of its last parts as tell it from all others, and one at least."""
    parts = [path.absolute().parts for path in paths]
    taken: dict[tuple[str, ...], int] = {}
    for own in set(parts):
        for count in range(1, len(own) + 1):
            taken[own[-count:]] = taken.get(own[-count:], 0) + 1
    names = []
    for own in parts:
        counts = range(1, len(own))
        count = next((c for c in counts if taken[own[-c:]] == 1), len(own))
        names.append(str(Path(*own[-count:])))
    return names


def _all_but_seeds(run: Run) -> tuple[Any, ...]:
    settings = sorted((k, repr(v)) for k, v in run.settings.items() if k not in SEEDS)
    return run.preset, run.n, run.steps, run.trained_on, run.measured_on, *settings


def _place_of(group: Sequence[Run]) -> Path:
    """The path of a group: what its runs' paths are without the seeds in them."""
    if len(group) == 1 or not _is_plain(group):
        return group[0].path
    return _without_seeds(group[0].path)


def _is_plain(group: Sequence[Run]) -> bool:
    """Whether the paths of a group's runs differ in seeds alone."""
    return len({_without_seeds(run.path) for run in group}) == 1


def _without_seeds(path: Path) -> Path:
    """`topk/k=8,seed=1` becomes `topk/k=8`, and `topk/seed=1` becomes `topk`."""
    parts = [",".join(filter(None, _SEED_IN_NAME.sub("", p).split(","))) for p in path.parts]
    return Path(*filter(None, parts))
