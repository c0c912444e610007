"""How much memory a training takes, before it takes it."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from cpsae.device import free_memory
from cpsae.errors import SettingsError
from cpsae.memory import gigabytes
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training.choose_rule import latent_copies, rule_for
from cpsae.training.dense_rule import Dense
from cpsae.training.settings import FitSettings, Split

_OF_A_WEIGHT = 4
"""The weight, two moments and its gradient."""
_SENT = 1
"""More of them among processes that share batches: the gradient as it goes from one to another."""
_BATCH_COPIES = 8
"""Batches of rows at once: those that are read ahead, the normalised one, its reconstruction and
their gradients."""


_SMALLEST_BATCH = 256
"""Below which a smaller dictionary is the better advice."""
_MOST_PROCESSES = 1024
"""Over so many at most is a dictionary advised to be split."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak of an update, about."""

    weights: int
    """Of all runs that are trained together, their moments and gradients."""
    latents: int
    """(B, N) tensors."""
    rows: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.latents + self.rows

    def __str__(self) -> str:
        weights, latents = gigabytes(self.weights), gigabytes(self.latents)
        return (
            f"{gigabytes(self.total)} (weights and their moments {weights}, latents of a batch "
            f"{latents})"
        )


def plan_memory(
    runs: Sequence[FitSettings],
    d: int,
    device: torch.device,
    n: int | None = None,
    batch: int | None = None,
    processes: int = 1,
    split: Split | None = None,
) -> MemoryPlan:
    """Of runs that are trained together on rows (d,), of one of the processes that share batches or
    features. n, batch, split: in place of their own. Takes no memory itself."""
    of_batch, of_features = processes, 1
    if (split or runs[0].split) == "features":
        of_batch, of_features = 1, processes
    rows = -(-(batch or runs[0].batch_size) // of_batch)
    of_a_weight = _OF_A_WEIGHT + (_SENT if of_batch > 1 else 0)
    weights, latents, kept = 0, [], True
    for settings in runs:
        features = -(-(n or settings.n_latents or d) // of_features)
        kind_class = load_kind(settings.kind)
        with torch.device("meta"):
            kind = kind_class(settings.method, RunPlan(d, settings.n_latents or d))
        per_feature = [spec for spec in kind.weights.values() if spec.per_feature]
        numbers = sum(math.prod(spec.sizes(d, 1)) for spec in per_feature)
        weights += of_a_weight * 4 * (features * numbers + d)
        rule = rule_for(kind, device)
        latents.append(round(latent_copies(rule) * 4 * rows * features))
        kept = kept and isinstance(rule, Dense)
    # only Dense keeps its memory while another run has its update
    return MemoryPlan(weights, sum(latents) if kept else max(latents), _BATCH_COPIES * 4 * rows * d)


def refuse_large(
    runs: Sequence[FitSettings], d: int, device: torch.device, processes: int = 1
) -> MemoryPlan:
    """The plan of one of so many processes. Raises SettingsError where it is more than what is
    free."""
    plan_of = partial(plan_memory, runs, d, device)
    plan, free = plan_of(processes=processes), free_memory(device)
    if free is None or plan.total <= free.bytes:
        return plan
    settings = runs[0]
    together = f"{len(runs)} runs with " if len(runs) > 1 else ""
    under = f" under {free.limit}" if free.limit else ""
    raise SettingsError(
        f"{together}n_latents {settings.n_latents or d} and batch_size {settings.batch_size}: "
        f"training takes about {plan}, {device} has {gigabytes(free.bytes)} free{under}; "
        f"{_what_fits(runs, d, plan_of, free.bytes, processes)}"
    )


def _what_fits(
    runs: Sequence[FitSettings],
    d: int,
    plan_of: Callable[..., MemoryPlan],
    free: int,
    processes: int,
) -> str:
    """The largest batch that does, or, where that is too small to train with, dictionary, and over
    how many processes this one would be split."""

    def fits(**changed: Any) -> bool:
        return plan_of(**{"processes": processes, **changed}).total <= free

    batch = _largest(runs[0].batch_size, lambda size: fits(batch=size))
    if batch >= _SMALLEST_BATCH:
        return f"--batch-size {batch} fits"
    n = _largest(runs[0].n_latents or d, lambda size: fits(n=size))
    found = [f"--n-latents {n} fits"] if n else []
    over = range(max(2, processes), _MOST_PROCESSES + 1)
    first = bisect_left(over, True, key=lambda count: fits(processes=count, split="features"))
    if first < len(over) and all(load_kind(settings.kind).works_split for settings in runs):
        count = f"these {processes}" if over[first] == processes else f"{over[first]}"
        found.append(f"--split features fits over {count} processes, each with a device like this")
    return ", or ".join(found) or "free some, or take another machine"


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `most` that fits, 0 where none does."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
