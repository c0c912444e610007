"""What is kept about the rows of a chunk, and exact order statistics over all of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Summary:
    """Statistics of all rows of a chunk together."""

    mean: npt.NDArray[np.float64]
    """(d,), mean over the rows."""
    mean_squared_norm: float
    largest_norm: float

    def as_row(self) -> npt.NDArray[np.float64]:
        """The chunk's row (d + 2,) of `statistics/summary`."""
        return np.concatenate([self.mean, [self.mean_squared_norm, self.largest_norm]])

    @classmethod
    def from_row(cls, row: npt.NDArray[np.float64]) -> "Summary":
        """The inverse."""
        return cls(row[:-2], float(row[-2]), float(row[-1]))


@dataclass(frozen=True)
class ChunkStatistics:
    """Statistics of the stored (rounded) rows of one chunk; sums are float64."""

    norms: npt.NDArray[np.float32]
    """L2 norm of each row."""
    summary: Summary

    @classmethod
    def of(cls, rows: npt.NDArray[Any]) -> "ChunkStatistics":
        """Of rows (n, d) in any float dtype. A NaN or Inf in a row shows as one in its norm."""
        with np.errstate(over="ignore", invalid="ignore"):  # as the caller sees in the norms
            return cls._of(rows)

    @classmethod
    def _of(cls, rows: npt.NDArray[Any]) -> "ChunkStatistics":
        squared = np.empty(len(rows), dtype=np.float64)
        total = np.zeros(rows.shape[1], dtype=np.float64)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = as_float32(rows[start : start + _BLOCK_ROWS]).astype(np.float64)
            squared[start : start + len(block)] = np.einsum("ij,ij->i", block, block)
            total += block.sum(axis=0)
        norms, count = np.sqrt(squared), len(rows)
        summary = Summary(total / count, float(squared.sum() / count), float(norms.max()))
        return cls(norms.astype(np.float32), summary)


def as_float32(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The same values in float32. bfloat16 is the upper half of a float32, so two cheap passes
    over the bits do what a general conversion needs far longer for."""
    if rows.dtype.name != "bfloat16":
        return rows.astype(np.float32, copy=False)
    wide = rows.view(np.uint16).astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def exact_median(chunks: Callable[[], Iterable[npt.NDArray[np.float32]]]) -> float:
    """Median of non-negative float32 values that are read twice, chunk by chunk.

    Equal to numpy.median of them all, in memory that does not depend on their number: the bits of
    non-negative floats sort like integers, so the upper half of the bits finds the bin and the
    lower half the value within it. Raises ValueError where there are no values.
    """
    upper = np.zeros(1 << 16, dtype=np.int64)
    for values in chunks():
        upper += np.bincount(values.view(np.uint32) >> 16, minlength=1 << 16)
    count = int(upper.sum())
    if count == 0:
        raise ValueError("the median of no values is not defined")
    cumulative = np.cumsum(upper)
    ranks = ((count - 1) // 2, count // 2)
    bins = [int(np.searchsorted(cumulative, rank, side="right")) for rank in ranks]
    lower = {index: np.zeros(1 << 16, dtype=np.int64) for index in bins}
    for values in chunks():
        bits = values.view(np.uint32)
        for index, histogram in lower.items():
            inside = bits[(bits >> 16) == index] & 0xFFFF
            histogram += np.bincount(inside, minlength=1 << 16)
    middle = []
    for rank, index in zip(ranks, bins, strict=True):
        within = rank - (int(cumulative[index - 1]) if index else 0)
        low = int(np.searchsorted(np.cumsum(lower[index]), within, side="right"))
        middle.append(np.uint32((index << 16) | low).view(np.float32))
    return float(np.mean(middle, dtype=np.float64))
