"""What a run's first weights take from its store, found once and recorded in its folder.

Names: N features, D dimensions.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cpsae.sae.births import draw_directions, firing_level
from cpsae.sae.initialization import initialize
from cpsae.sae.kind import Kind
from cpsae.store import StorePart
from cpsae.store.bound import FACT_ROWS, first_chunks
from cpsae.tensors import tensor_of
from cpsae.training.facts import Facts
from cpsae.training.settings import FitSettings

_BLOCK_ROWS = 4096
"""Rows normalised at a time, so that memory does not grow with the chunks."""
_CANDIDATES = 16_384
"""Rows that features may begin along, spread evenly over the first ones."""


def start_key(facts: Facts, settings: FitSettings) -> str:
    """The same for runs on one store whose `find_start` is the same."""
    of_all = (settings.init, facts.normalizer)
    of_data = (settings.n_latents, settings.seed, settings.center, settings.firing_share)
    return repr(of_all + of_data if settings.init == "data" else of_all)


def find_start(part: StorePart, facts: Facts, settings: FitSettings) -> dict[str, Tensor]:
    """`mean` (D,), what b_dec begins with; where features begin along rows, `directions` (N, D)
    and `level` (N,) too. All float32, of the first normalised rows that count; empty where
    `init = uniform`."""
    if settings.init == "uniform":
        return {}
    mean_D = mean_normalized(part, facts)
    if settings.init == "tied":
        return {"mean": mean_D}
    every = max(1, min(part.vectors, FACT_ROWS) // _CANDIDATES)
    rows = torch.cat([block[::every] for block in _normalized(part, facts)])
    generator = torch.Generator().manual_seed(settings.seed)
    directions_ND = draw_directions(rows - mean_D, settings.n_latents or part.d, generator)
    seen = rows - mean_D if settings.center else rows
    level_N = firing_level(seen, directions_ND, settings.firing_share)
    return {"mean": mean_D, "directions": directions_ND, "level": level_N}


def first_weights(
    kind: Kind, settings: FitSettings, start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights before the first update, on the CPU, by the names of the kind's.

    start: what `find_start` gave; the mean and the directions are left out where it lacks them.
    """
    how: Literal["tied", "uniform"] = "uniform" if settings.init == "uniform" else "tied"
    plan = kind.plan
    weights = initialize(kind.weights, plan.d, plan.n, how, start.get("mean"), settings.seed)
    if "directions" in start:
        kind.begin(weights, torch.arange(plan.n), start["directions"], start["level"])
    return weights


def mean_normalized(part: StorePart, facts: Facts) -> Tensor:
    """Mean (D,) float32 of the first normalised rows that count: what b_dec may begin with."""
    total, count = torch.zeros(part.d, dtype=torch.float64), 0
    for block in _normalized(part, facts):
        total += block.sum(dim=0, dtype=torch.float64)
        count += len(block)
    return (total / max(count, 1)).float()


def _normalized(part: StorePart, facts: Facts) -> Iterator[Tensor]:
    """The first rows that count, normalised, in blocks."""
    for chunk, first in first_chunks(part):
        kept = np.flatnonzero(part.norms(chunk)[:first] <= np.float64(facts.norm_bound))
        rows = part.rows(chunk)
        for start in range(0, len(kept), _BLOCK_ROWS):
            block = tensor_of(rows[kept[start : start + _BLOCK_ROWS]])
            yield facts.normalizer.normalize(block)
