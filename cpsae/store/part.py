"""One part of an open store: mapped rows whose checksum was checked, and what is known of them."""

import math
import operator
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpsae.errors import StoreError
from cpsae.store.bucket import Bucket
from cpsae.store.described import described_rows
from cpsae.store.growing import GrowingBucket
from cpsae.store.integrity import checked_bytes, checked_tokens
from cpsae.store.layout import (
    CRC_BYTES,
    NUMPY_DTYPES,
    TOKEN_CONTEXTS_A_CHUNK,
    Chunk,
    ContextRecord,
    Part,
)
from cpsae.store.statistics import Summary, exact_median

_AHEAD = 4
"""Chunks that are fetched ahead where all are read in their order."""


class RowOrigin(NamedTuple):
    """The text position a row was computed at."""

    context: int
    position: int


class StorePart:
    """The training or the evaluation part of an open store: the chunks that are there.

    `vectors` counts the rows of those chunks. Rows and chunks keep the numbers that they have in
    the whole store, so an unfinished store is a store with gaps, not a renumbered one.
    """

    def __init__(self, bucket: Bucket, part: Part, chunks: Sequence[Chunk]) -> None:
        self.bucket = bucket
        self.part = part
        self.name = part.name
        self.manifest = part.manifest
        self.chunks = list(chunks)
        self.vectors = sum(chunk.n_rows for chunk in self.chunks)
        self.d = part.manifest.d
        self._checked: dict[str, Hashable] = {}
        self._kept_tokens: tuple[int, npt.NDArray[np.int32]] | None = None

    def rows(self, chunk: Chunk) -> npt.NDArray[Any]:
        """Rows (n_rows, d) of a chunk in the store's dtype, mapped and read-only.

        Their checksum is checked the first time, and again where the file has changed since.
        Raises DamagedStoreError where it is missing, cut short, or fails its checksum.
        """
        values = self._values(chunk.key, NUMPY_DTYPES[self.manifest.store_dtype])
        return values.reshape(self.manifest.rows_per_chunk, self.d)[: chunk.n_rows]

    def norms(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        """L2 norms (n_rows,) of a chunk's rows, checked as rows are."""
        return self._values(chunk.norms_key, np.dtype("<f4"))[: chunk.n_rows]

    def summary(self, chunk: Chunk) -> Summary:
        """Statistics of all rows of a chunk together, checked as rows are."""
        return Summary.from_row(self._values(chunk.summary_key, np.dtype("<f8")))

    def _values(self, key: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        try:
            stamp = self.bucket.stamp(key)
        except OSError:
            stamp = None  # reading it says what is wrong
        if stamp is None or self._checked.get(key) != stamp:
            raw = checked_bytes(self.bucket, key)
            self._checked[key] = stamp
        else:
            raw = self.bucket.read(key)
        return raw[:-CRC_BYTES].view(dtype)

    def prefetch(self, chunks: Sequence[Chunk]) -> None:
        """Rows and norms of these are read next; see `Bucket.prefetch`."""
        self.bucket.prefetch(key for chunk in chunks for key in (chunk.key, chunk.norms_key))

    def stop_waiting(self) -> None:
        """End the waits for rows of a store that is followed, and what is fetched ahead."""
        self.bucket.prefetch([])
        if isinstance(self.bucket, GrowingBucket):
            self.bucket.stop_waiting()

    @cached_property
    def median_norm(self) -> float:
        """Exact median of the norms of all rows that are not zero, in constant memory; 0 where
        all are."""

        def norms() -> Iterator[npt.NDArray[np.float32]]:
            for chunk in self.chunks:
                found = self.norms(chunk)
                yield found[found > 0]

        try:
            return exact_median(norms)
        except ValueError:
            return 0.0

    def rows_over(self, bound: float) -> int:
        """How many rows have a norm above `bound`."""
        exact = np.float64(bound)  # or numpy would round it to the norms' float32
        return sum(int((self.norms(chunk) > exact).sum()) for chunk in self.chunks)

    @cached_property
    def largest_norm(self) -> float:
        """The largest norm of any row."""
        return max(self.summary(chunk).largest_norm for chunk in self.chunks)

    @cached_property
    def mean(self) -> npt.NDArray[np.float64]:
        """(d,), mean over all rows."""
        total = np.zeros(self.d, np.float64)
        for chunk in self.chunks:
            total += chunk.n_rows * self.summary(chunk).mean
        return total / self.vectors

    @cached_property
    def mean_squared_norm(self) -> float:
        """E||x||^2 over all rows."""
        total = sum(chunk.n_rows * self.summary(chunk).mean_squared_norm for chunk in self.chunks)
        return float(total / self.vectors)

    @property
    def shape(self) -> tuple[int, int]:
        """(vectors, d)."""
        return self.vectors, self.d

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows as they are stored; ml_dtypes' where that is bfloat16."""
        return NUMPY_DTYPES[self.manifest.store_dtype]

    @property
    def ndim(self) -> int:
        """2, as of `shape`."""
        return 2

    def __len__(self) -> int:
        return self.vectors

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        """Rows by their numbers, as of an array: one number gives (d,), a slice or a list of
        numbers (rows, d); copied, in the store's dtype.

        Raises IndexError beyond the part's end; StoreError for a row of an unfinished store that
        is not there yet.
        """
        numbers = _numbers(rows, self.part.vectors)
        return self._gather(numbers) if numbers.ndim else self._gather(numbers[None])[0]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Row by row; `batches` gives many at a time."""
        return (row for block in self.batches() for row in block)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """All rows in memory."""
        if copy is False:
            raise ValueError("the rows of a store are not in memory: they have to be copied")
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def described(self) -> str:
        """Shape, type and size, in words."""
        return described_rows(self.vectors, self.d, self.dtype, self.part.vectors)

    def __repr__(self) -> str:
        return f"StorePart({self.name}: {self.described})"

    def _gather(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        found = np.empty((len(numbers), self.d), self.dtype)
        per_chunk = self.manifest.rows_per_chunk
        there = {chunk.index: chunk for chunk in self.chunks}
        for index in np.unique(numbers // per_chunk).tolist():
            if index not in there:
                raise StoreError(
                    f"{self.bucket.name}: row {index * per_chunk} of {self.name} is not there yet; "
                    "run the same `cpsae extract` command again to finish the store"
                )
            wanted = numbers // per_chunk == index
            found[wanted] = self.rows(there[index])[numbers[wanted] - index * per_chunk]
        return found

    def batches(self, size: int = 4096) -> Iterator[npt.NDArray[Any]]:
        """All rows in stored order, `size` at a time (the last batch may be smaller), copied."""
        if size < 1:
            raise ValueError(f"a batch of {size} rows is none")
        pending: list[npt.NDArray[Any]] = []
        held = 0
        for number, chunk in enumerate(self.chunks):
            self.bucket.prefetch(near.key for near in self.chunks[number : number + _AHEAD])
            rows = self.rows(chunk)
            start = 0
            while held + len(rows) - start >= size:
                pending.append(rows[start : start + size - held])
                yield np.concatenate(pending)
                start += size - held
                pending, held = [], 0
            if start < len(rows):
                pending.append(rows[start:])
                held += len(rows) - start
        if pending:
            yield np.concatenate(pending)

    def origin(self, row: int) -> RowOrigin:
        """The context and position of a row. Raises StoreError in a store without tokens."""
        contexts = self._contexts()
        return RowOrigin(row // contexts.rows, row % contexts.rows + contexts.first_position)

    def tokens(self, contexts: range) -> npt.NDArray[np.int32]:
        """Token ids (len(contexts), T) of consecutive contexts.

        Raises DamagedStoreError where a file of them is missing or fails its checksum.
        """
        empty = np.empty((0, self._contexts().tokens), np.int32)
        first = contexts.start // TOKEN_CONTEXTS_A_CHUNK
        end = math.ceil(contexts.stop / TOKEN_CONTEXTS_A_CHUNK)
        blocks = [self._token_chunk(number) for number in range(first, end)]
        start = contexts.start - first * TOKEN_CONTEXTS_A_CHUNK
        return np.concatenate([empty, *blocks])[start : start + len(contexts)].copy()

    def _token_chunk(self, number: int) -> npt.NDArray[np.int32]:
        """One chunk of tokens, decoded; the last one asked for is kept, as the next is often it."""
        if self._kept_tokens is None or self._kept_tokens[0] != number:
            spec = self.part.tokens_array()
            block = checked_tokens(self.bucket, self.part.token_keys()[number], spec)
            left = self.part.n_contexts - number * TOKEN_CONTEXTS_A_CHUNK
            self._kept_tokens = number, block[:left]
        return self._kept_tokens[1]

    def _contexts(self) -> ContextRecord:
        contexts = self.manifest.contexts
        if contexts is None:
            raise StoreError(f"{self.bucket.name}: was made from arrays and holds no tokens")
        return contexts


def _numbers(rows: Any, total: int) -> npt.NDArray[np.int64]:
    """What an index of rows says: their numbers, or one number as an array of no dimension."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(total))
    if isinstance(rows, tuple):
        raise IndexError("a store is indexed by rows alone; index what that gives by columns")
    try:
        numbers = np.asarray(operator.index(rows))
    except TypeError:
        numbers = np.asarray(rows)
        if numbers.dtype == np.bool_ and numbers.shape == (total,):
            numbers = np.flatnonzero(numbers)
        if not numbers.size:
            numbers = numbers.astype(np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
        raise IndexError(f"rows {rows!r}: expected a number, a slice, or a list of numbers")
    wrong = numbers[(numbers < -total) | (numbers >= total)]
    if wrong.size:
        raise IndexError(f"row {wrong.flat[0]} is beyond the {total:,} rows")
    return np.where(numbers < 0, numbers + total, numbers).astype(np.int64)
