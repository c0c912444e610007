"""Rows that other programs left in files, mapped, not read: any number of them fits any memory.

Names: C contexts, T positions of a context, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpsae.errors import SourceError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Rows (vectors, D) in order, of several mapped blocks, each (some, D) of one dtype; what
    `write_store` takes for an array. Of every T rows, which are a context, the first `dropped` are
    left out."""

    blocks: Sequence[Array]
    positions: int = 1
    """T; 1 where rows are not known to belong together."""
    dropped: int = 0
    first: int = 0
    count: int | None = None
    """Rows from `first` on, counted without those left out; None: all."""

    ndim = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of all blocks."""
        dtype: np.dtype[Any] = self.blocks[0].dtype
        return dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(vectors, D)."""
        return len(self), int(self.blocks[0].shape[1])

    @property
    def per_context(self) -> int:
        """Rows of a context that count."""
        return self.positions - self.dropped

    def __len__(self) -> int:
        if self.count is not None:
            return self.count
        held = sum(map(len, self.blocks))
        return held // self.positions * self.per_context - self.first

    def __getitem__(self, wanted: Any) -> Array:
        """One row (D,), or those of an array of numbers (some, D): a copy."""
        numbers = self.first + np.atleast_1d(np.asarray(wanted))
        numbers = numbers // self.per_context * self.positions + numbers % self.per_context
        numbers = numbers + self.dropped
        ends = np.cumsum([len(block) for block in self.blocks])
        which = np.searchsorted(ends, numbers, side="right")
        rows = np.empty((len(numbers), self.shape[1]), self.dtype)
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            block = self.blocks[number]
            rows[here] = block[numbers[here] - (ends[number] - len(block))]
        return rows if np.ndim(wanted) else rows[0]

    def part(self, first: int, count: int) -> "Rows":
        """So many rows from that one on."""
        return replace(self, first=self.first + first, count=count)


@dataclass(frozen=True)
class FoundRows:
    """Rows, and what their files say of them."""

    rows: Rows
    files: tuple[Path, ...]
    hook_name: str | None = None
    """As TransformerLens calls the place, where they say it."""
    model: str | None = None
    notes: tuple[str, ...] = ()


def as_rows(name: str, arrays: Sequence[Array]) -> Rows:
    """Of arrays (vectors, D), or of contexts (C, T, D), of one dtype and width. Raises SourceError
    where they are something else, or do not go with each other."""
    if not arrays:
        raise SourceError(f"{name}: holds no rows")
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1 or len({array.dtype for array in arrays}) > 1:
        told = ", ".join(f"{a.dtype} {a.shape}" for a in (arrays[0], _other(arrays)))
        raise SourceError(f"{name}: its files do not go with each other ({told})")
    first = arrays[0]
    if first.ndim not in (2, 3) or not all(first.shape[1:]):
        raise SourceError(
            f"{name}: expected rows (vectors, d) or contexts (contexts, positions, d), got shape "
            f"{first.shape}"
        )
    if first.dtype.kind != "f" and first.dtype.name != "bfloat16":
        raise SourceError(f"{name}: expected floats, got {first.dtype}")
    if first.ndim == 3 and not all(array.flags.c_contiguous for array in arrays):
        raise SourceError(f"{name}: is in Fortran's order; write it again in C's")
    positions = first.shape[1] if first.ndim == 3 else 1
    blocks = [array.reshape(-1, array.shape[-1]) for array in arrays if len(array)]
    if not blocks:
        raise SourceError(f"{name}: holds no rows")
    return Rows(blocks, positions)


def _other(arrays: Sequence[Array]) -> Array:
    first = arrays[0]
    same = (first.shape[1:], first.dtype)
    return next(array for array in arrays if (array.shape[1:], array.dtype) != same)
