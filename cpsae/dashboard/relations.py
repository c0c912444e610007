"""How features stand to each other: nearest in the decoder, on together, off when another is on.

Names: N features, M enabled features, D dimensions, K neighbours.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpsae.dashboard.codes import Table
from cpsae.dashboard.firings import Firings, priorities
from cpsae.dashboard.rows import Ints
from cpsae.sae.initialization import unit_rows

NEIGHBOURS = 6
_AT_ONCE = 1024
_ENTRIES_LOOKED_AT = 1 << 28
"""Entries of rows that are counted for all features together; of features that fire in many rows,
as many of their rows as that allows are drawn."""
_LEAST_ROWS = 2
"""Features that meet in fewer rows are not told of."""


class Relation(NamedTuple):
    """A feature that stands to another one in some way."""

    feature: int
    share: float
    """Of the other one's rows."""


@torch.no_grad()
def neighbours(w_dec_ND: Tensor, m: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The K enabled features whose decoder rows have the largest cosine with each one's, the
    nearest first, and these cosines: (M, K), K being NEIGHBOURS or M - 1."""
    w = unit_rows(w_dec_ND[:m].float())
    k = min(NEIGHBOURS, m - 1)
    found, cosines = [np.empty((0, k), np.int64)], [np.empty((0, k), np.float32)]
    for start in range(0, m, _AT_ONCE):
        products = w[start : start + _AT_ONCE] @ w.T
        here = torch.arange(len(products), device=w.device)
        products[here, here + start] = -torch.inf
        best = products.topk(k, dim=1)
        found.append(best.indices.cpu().numpy())
        cosines.append(best.values.cpu().numpy())
    return np.concatenate(found), np.concatenate(cosines)


class Meetings:
    """Which features are listed in the rows in which a feature fires."""

    def __init__(self, firings: Firings, table: Table) -> None:
        """table: lists over the same rows."""
        self._firings, self._table = firings, table
        self._counts = np.bincount(table.features, minlength=firings.codes.m)
        per_row = max(1.0, len(table.features) / max(1, firings.codes.rows))
        self._most_rows = max(64, int(_ENTRIES_LOOKED_AT / per_row / firings.codes.m))

    def of(self, feature: int, most: int = NEIGHBOURS) -> list[Relation]:
        """Those that meet it most, by Jaccard's index: rows in which both are, over rows in which
        either is. Of equal ones the first."""
        rows = self._firings.rows(feature)
        fires = len(rows)
        if fires > self._most_rows:
            rows = np.sort(rows[np.argsort(priorities(rows), kind="stable")[: self._most_rows]])
        if not fires:
            return []
        together = np.bincount(self._listed(rows), minlength=len(self._counts))
        together[feature] = 0
        share = together / len(rows)
        both = share * fires
        jaccard = both / np.maximum(fires + self._counts - both, 1e-9)
        jaccard[together < _LEAST_ROWS] = 0
        best = np.argsort(-jaccard, kind="stable")[:most]
        return [Relation(int(i), float(share[i])) for i in best if jaccard[i] > 0]

    def _listed(self, rows: Ints) -> npt.NDArray[np.int32]:
        """The lists of these rows, one after another."""
        starts, ends = self._table.starts[rows], self._table.starts[rows + 1]
        lengths = ends - starts
        before = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
        return np.asarray(self._table.features[places])
