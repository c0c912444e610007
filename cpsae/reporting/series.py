"""Which runs a line joins in a picture: those of one preset that differ only in how many latents
are active."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpsae.reporting.runs import SEEDS, SOURCE, Group

SPARSITY = ("k", "l1", "target_l0")
"""The settings with which kinds choose L0."""


@dataclass(frozen=True)
class Series:
    """A line of a picture, its points by increasing L0."""

    label: str
    groups: list[Group]


def series_of(groups: Sequence[Group]) -> list[Series]:
    """Lines, by label: the preset, and in what a line differs from most of the preset's others."""
    lines: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        lines.setdefault((group.first.method, *_shared(group).items()), []).append(group)
    found = []
    for points in lines.values():
        method = points[0].first.method
        beside = [_shared(line[0]) for line in lines.values() if line[0].first.method == method]
        label = ", ".join([method, *_differences(_shared(points[0]), beside)])
        found.append(Series(label, sorted(points, key=_l0)))
    return sorted(found, key=lambda series: series.label)


def _shared(group: Group) -> dict[str, str]:
    """What all points of a line have in common, as text."""
    run = group.first
    settings = {"n": run.n, "steps": run.steps or "", **run.settings}
    left_out = {*SPARSITY, *SEEDS, "n_latents", SOURCE}
    shared = {key: f"{value}" for key, value in sorted(settings.items()) if key not in left_out}
    stores = {"store": run.trained_on or "", "measured on": run.measured_on or ""}
    return {**shared, **{key: identity[:8] for key, identity in stores.items()}}


def _differences(own: dict[str, str], beside: Sequence[dict[str, str]]) -> list[str]:
    """KEY=VALUE of what not all have and this one does not share with more than half."""
    told = []
    for key, value in own.items():
        counts = Counter(other.get(key, "") for other in beside)
        if counts[value] < len(beside) and counts[value] * 2 <= len(beside):
            told.append(f"{key}={value}")
    return told


def _l0(group: Group) -> float:
    spread = group.spread("l0")
    return spread.mean if spread else 0.0
