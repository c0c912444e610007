"""Which rows count: those whose norm is not far beyond what is usual in their store.

A few rows of some models are a hundred times longer than the rest and wreck means and errors.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cpsae.store.layout import Chunk
from cpsae.store.part import StorePart

FACT_ROWS = 1 << 18
"""Rows in store order that facts of a run are taken from, at most: a quarter of a million settle a
median or a mean, and a store that is still growing gives the same ones later."""


def first_chunks(part: StorePart) -> Iterator[tuple[Chunk, int]]:
    """The chunks of the first `FACT_ROWS` rows, and how many rows of each are among them."""
    left = FACT_ROWS
    for chunk in part.chunks:
        if left <= 0:
            return
        yield chunk, min(left, chunk.n_rows)
        left -= chunk.n_rows


def first_norms(part: StorePart) -> npt.NDArray[np.float32]:
    """Norms of the first `FACT_ROWS` rows, or of all."""
    found = [part.norms(chunk)[:count] for chunk, count in first_chunks(part)]
    return np.concatenate([np.empty(0, np.float32), *found])


def norm_bound(part: StorePart, max_norm: float) -> np.float64:
    """`max_norm` times the median norm of the part's first rows that are not zero; infinity where
    max_norm is 0 or there is no such row.

    float64, or numpy would round the bound to the norms' float32 before it compares.
    """
    norms = first_norms(part)
    norms = norms[norms > 0].astype(np.float64)
    if not max_norm or not len(norms):
        return np.float64(np.inf)
    return np.float64(max_norm * np.median(norms))
