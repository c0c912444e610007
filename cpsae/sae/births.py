"""Where features begin: along rows, or along what the autoencoder leaves of them, not at random.

Directions are drawn with probability in proportion to squared length and made orthogonal to each
other, so that features born together do not fire together.

Names: R candidate rows, B rows, D dimensions, K features to be born.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cpsae.config import Count, Settings

_DIRECTIONS_AT_ONCE = 1024
"""Whose projections are sorted together, so that memory does not grow with the dictionary."""


class BirthSettings(Settings):
    """How features begin that do not begin with the run."""

    new_features: Literal["initial", "residual"] = "initial"
    """Features that are enabled late begin with their initial weights, or along what the batch's
    reconstruction leaves."""
    revive_every: Count = Field(0, ge=0)
    """Steps after which features that have not fired in as many begin anew along what the batch's
    reconstruction leaves; 0: never. Shortened as the warm-up is."""
    revive_until: float = Field(0.8, gt=0, le=1)
    """Part of the run after which none is revived any more."""
    firing_share: float = Field(1 / 64, gt=0, lt=1)
    """Share of the batch's rows on which a feature that begins along rows or residuals fires."""


def draw_directions(candidates_RD: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, D) unit directions, on the candidates' device, orthogonal to each other in blocks of
    at most D and at most R.

    A block's rows are drawn without repetition, blocks independently. generator: on the CPU, so
    that the same rows are drawn on every device.
    """
    candidates_RD = candidates_RD.float()
    weights_R = candidates_RD.square().sum(dim=1).cpu().double()
    # none of probability 0, or there may be too few to draw
    weights_R += weights_R.mean() * 1e-6 + torch.finfo(torch.float32).tiny
    block = min(candidates_RD.shape)
    directions = []
    for first in range(0, count, block):
        size = min(block, count - first)
        drawn = torch.multinomial(weights_R, size, generator=generator)
        directions.append(_orthogonal(candidates_RD[drawn.to(candidates_RD.device)]))
    return torch.cat(directions)


def firing_level(x_BD: Tensor, directions_KD: Tensor, share: float) -> Tensor:
    """(K,) a value that a `share` of the rows' projections on each direction, but at least one of
    several, is above: half-way between two of them, so that rounding decides nothing."""
    x_BD = x_BD.float()
    below = min(len(x_BD) - 1, max(1, round((1 - share) * len(x_BD))))
    levels = []
    for first in range(0, len(directions_KD), _DIRECTIONS_AT_ONCE):
        some_KD = directions_KD[first : first + _DIRECTIONS_AT_ONCE]
        values_BK = (x_BD @ some_KD.T).sort(dim=0).values
        levels.append((values_BK[below - 1] + values_BK[below]) / 2)
    return torch.cat(levels)


def _orthogonal(rows_KD: Tensor) -> Tensor:
    """Rows made orthogonal one after the other, each keeping its side, of unit norm."""
    q, r = torch.linalg.qr(rows_KD.T)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0)
    made: Tensor = (q * signs).T.contiguous()
    return made
