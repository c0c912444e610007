"""The held-out rows of a store as they are measured: slice by slice, each row with its context.

Names: B rows of a slice, D dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cpsae.errors import SettingsError, StoreError
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.store import Chunk, Store, StorePart

SLICE_ROWS = 2048
"""Most rows of a slice: what is encoded at once."""
BATCH_CONTEXTS = 16
"""Contexts of a batch of SAEBench's; of `SLICE_ROWS` rows where a store has no contexts."""


@dataclass(frozen=True)
class RowSlice:
    """Neighbouring rows of one chunk and one batch."""

    rows: npt.NDArray[Any]
    """(B, D), in the store's dtype, mapped."""
    norms: npt.NDArray[np.float32]
    units: npt.NDArray[np.int64]
    """(B,) the context of each row (or the row itself), counted from 0 over those that are there;
    never falling."""
    special: npt.NDArray[np.bool_]
    """(B,) whether its token is a special one."""
    batch: int
    """The number of the batch, from 0."""


class HeldOutRows:
    """The first contexts of a store's held-out part, or all of them."""

    def __init__(self, store: Store, special: SpecialTokens, contexts: int | None = None) -> None:
        """contexts: how many of those that are there; None for all.

        Raises StoreError where nothing is held out; SettingsError where `contexts` cannot apply.
        """
        self.part = held_out_part(store)
        self.special = special
        self.of_contexts = store.manifest.contexts is not None
        self._unit_rows = store.manifest.contexts.rows if store.manifest.contexts else 1
        self._most = limit(store, contexts) * self._unit_rows if contexts is not None else None
        self._chunks = list(self._within())
        self.rows = sum(count for _, count in self._chunks)
        self.units = sum(-(-count // self._unit_rows) for _, count in self._chunks)

    def slices(self) -> Iterator[RowSlice]:
        """All of them, in stored order."""
        first = 0
        size = BATCH_CONTEXTS * self._unit_rows if self.of_contexts else SLICE_ROWS
        for chunk, count in self._chunks:
            rows, norms = self.part.rows(chunk), self.part.norms(chunk)
            units = first + np.arange(count) // self._unit_rows
            special = self._special(chunk, count)
            place = np.arange(count) + first * self._unit_rows
            for start, end in _pieces(place // size):
                here = slice(start, end)
                yield RowSlice(
                    rows[here], norms[here], units[here], special[here], int(place[start] // size)
                )
            first += -(-count // self._unit_rows)

    def mean(self, norm_bound: float) -> npt.NDArray[np.float64]:
        """(D,), the mean of the rows that are not over `norm_bound`, from the sums that the store
        keeps of each chunk and the few rows that do not count. Zeros where no row does."""
        total, kept = np.zeros(self.part.d), 0
        for chunk, count in self._chunks:
            over = self.part.norms(chunk)[:count] > np.float64(norm_bound)
            if count == chunk.n_rows:
                total += count * self.part.summary(chunk).mean
            else:
                total += _total(self.part.rows(chunk)[:count])
            if over.any():
                total -= _total(self.part.rows(chunk)[:count][over])
            kept += count - int(over.sum())
        return total / kept if kept else np.zeros(self.part.d)

    def _within(self) -> Iterator[tuple[Chunk, int]]:
        """The chunks, and how many rows of each are among them."""
        left = self._most
        for chunk in self.part.chunks:
            count = chunk.n_rows if left is None else min(left, chunk.n_rows)
            if count <= 0:
                return
            yield chunk, count
            left = None if left is None else left - count

    def _special(self, chunk: Chunk, count: int) -> npt.NDArray[np.bool_]:
        contexts = self.part.manifest.contexts
        if contexts is None:
            return np.zeros(count, dtype=bool)
        tokens = self.part.tokens(chunk.contexts)[:, contexts.first_position :]
        return self.special.among(tokens).reshape(-1)[:count]


def held_out_part(store: Store) -> StorePart:
    """The evaluation part. Raises StoreError where nothing is held out."""
    part = store.evaluation
    if part is None or not part.chunks:
        raise StoreError(f"{store.path}: holds no evaluation rows; extract or write some")
    return part


def limit(store: Store, contexts: int) -> int:
    """`contexts`, if so many may be asked for. Raises SettingsError where the store has none, or
    the number is not above 0."""
    if store.manifest.contexts is None:
        raise SettingsError(
            f"--contexts: {store.path} was made from arrays and has no contexts; leave it out"
        )
    if contexts < 1:
        raise SettingsError(f"--contexts: {contexts} is not a number of contexts; take 1 or more")
    return contexts


def _pieces(batches: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where slices begin and end, of rows in batches of these numbers."""
    edges = [0, *(np.flatnonzero(np.diff(batches)) + 1).tolist(), len(batches)]
    for begin, end in zip(edges, edges[1:], strict=False):
        for start in range(begin, end, SLICE_ROWS):
            yield start, min(end, start + SLICE_ROWS)


def _total(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), SLICE_ROWS):
        total += rows[start : start + SLICE_ROWS].astype(np.float64).sum(0)
    return total
