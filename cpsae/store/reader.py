"""Reading a store: mapped rows whose checksum was checked, never a zero for what is missing."""

import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpsae.errors import StoreError
from cpsae.events import OnEvent, ignore
from cpsae.store.bucket import Bucket
from cpsae.store.folders import find_bucket
from cpsae.store.growing import GrowingBucket, wait_for_tokens
from cpsae.store.integrity import checked_bytes, damaged
from cpsae.store.layout import (
    CRC_BYTES,
    NUMPY_DTYPES,
    TOKEN_CONTEXTS_A_CHUNK,
    Chunk,
    ContextRecord,
    Manifest,
    Part,
)
from cpsae.store.listing import Listing, in_words, missing_tokens
from cpsae.store.metadata import decode_tokens, document_problems, read_manifest
from cpsae.store.statistics import Summary, exact_median


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

    def stop_waiting(self) -> None:
        """End the waits for rows of a store that is followed."""
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

    def batches(self, size: int) -> Iterator[npt.NDArray[Any]]:
        """All rows in stored order, `size` at a time (the last batch may be smaller), copied."""
        if size < 1:
            raise ValueError(f"a batch of {size} rows is none")
        pending: list[npt.NDArray[Any]] = []
        held = 0
        for chunk in self.chunks:
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
            block = decode_tokens(checked_bytes(self.bucket, self.part.token_keys()[number]), spec)
            left = self.part.n_contexts - number * TOKEN_CONTEXTS_A_CHUNK
            self._kept_tokens = number, block[:left]
        return self._kept_tokens[1]

    def _contexts(self) -> ContextRecord:
        contexts = self.manifest.contexts
        if contexts is None:
            raise StoreError(f"{self.bucket.name}: was made from arrays and holds no tokens")
        return contexts


class Store:
    """An open store. `training` and `evaluation` (None where nothing is held out) are its parts."""

    def __init__(self, bucket: Bucket, manifest: Manifest, chunks: Sequence[Chunk]) -> None:
        self.bucket = bucket
        self.manifest = manifest
        self.chunks = list(chunks)
        self.d = manifest.d
        parts = {
            part.name: StorePart(bucket, part, [c for c in chunks if c.part.prefix == part.prefix])
            for part in manifest.parts()
        }
        self.training = parts["training"]
        self.evaluation = parts.get("evaluation")

    @property
    def path(self) -> Path:
        """Its folder, where it is in one."""
        return Path(self.bucket.name)

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) of what the rows are: their recipe, or, where a store was made from
        arrays, the checksums of its chunks. Not the path, and not how much is there yet."""
        digest = hashlib.sha256(json.dumps(self.manifest.identity, sort_keys=True).encode())
        if self.manifest.origin == "arrays":
            for chunk in self.chunks:
                digest.update(self.bucket.read(chunk.key)[-CRC_BYTES:].tobytes())
        return digest.hexdigest()

    def only(self, keys: Sequence[str]) -> "Store":
        """The same store, seen as if it had these chunks alone: what a run was begun with."""
        wanted = set(keys)
        return Store(self.bucket, self.manifest, [c for c in self.chunks if c.key in wanted])


def open_store(path: str | Path, allow_partial: bool = False) -> Store:
    """Open a store for reading, having listed every object that it should have.

    Raises StoreError where the folder is no store, or is unfinished and `allow_partial` is off;
    DamagedStoreError where a chunk of a finished store is missing, an object has a wrong size, or
    an array's document is not as the manifest says.
    """
    return open_bucket(find_bucket(path), allow_partial)


def follow_store(
    path: str | Path,
    should_stop: Callable[[], bool] = lambda: False,
    on_event: OnEvent = ignore,
) -> Store:
    """Open a store that is being extracted as the complete one that it will be: whoever asks for
    rows that are not there yet waits for them. A complete one is opened as `open_store` does.

    Raises what `open_store` raises, and StoppedWaiting where `should_stop` says so before the
    store's tokens are there.
    """
    bucket = find_bucket(path)
    if read_manifest(bucket).complete:
        return open_bucket(bucket)
    growing = GrowingBucket(bucket, should_stop, on_event)
    wait_for_tokens(growing)
    opened = open_bucket(bucket, allow_partial=True)
    return Store(growing, opened.manifest, list(opened.manifest.chunks()))


def open_bucket(bucket: Bucket, allow_partial: bool = False) -> Store:
    """`open_store` of a store in any bucket."""
    manifest = read_manifest(bucket)
    listing = Listing(bucket, manifest.chunks())
    present = listing.present()
    there = in_words(present, listing.chunks)
    _refuse_unfinished(bucket.name, manifest, allow_partial, there)
    problems: dict[str, list[str]] = {}
    for key, what in document_problems(bucket, manifest):
        problems.setdefault(what, []).append(key)
    missing = missing_tokens(bucket, manifest)
    if manifest.complete:
        missing += [key for chunk in listing.missing() for key in listing.missing_keys(chunk)]
    if missing:
        problems.setdefault("missing", []).extend(missing)
    for chunk in listing.chunks:
        for key, (_, right) in listing.wrong_sizes(chunk).items():
            what = f"not {right} bytes long (cut short or foreign)"
            problems.setdefault(what, []).append(key)
    if problems:
        raise damaged(bucket, problems, manifest)
    return Store(bucket, manifest, present)


def _refuse_unfinished(name: str, manifest: Manifest, allow_partial: bool, there: str) -> None:
    again = "run the same `cpsae extract` command again"
    if manifest.origin == "arrays":
        again = "remove it and write it again"
    if not manifest.complete and not allow_partial:
        raise StoreError(
            f"{name}: is unfinished ({there}); {again} to finish it, or use --allow-partial"
        )
    if not manifest.tokens_complete:
        raise StoreError(f"{name}: has no tokens yet; {again}")
