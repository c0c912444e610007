"""Reading a store: mapped rows whose checksum was checked, never a zero for what is missing."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from cpsae.errors import DamagedStoreError, StoreError
from cpsae.store.documents import document_problems, read_manifest
from cpsae.store.layout import (
    CRC_BYTES,
    NUMPY_DTYPES,
    TOKEN_CONTEXTS_A_CHUNK,
    Chunk,
    ContextRecord,
    Manifest,
    Part,
)
from cpsae.store.statistics import exact_median

_SHOWN = 5


class RowOrigin(NamedTuple):
    """The text position a row was computed at."""

    context: int
    position: int


class StorePart:
    """The training or the evaluation part of an open store: the chunks that are there.

    `vectors` counts the rows of those chunks. Rows and chunks keep the numbers that they have in
    the whole store, so an unfinished store is a store with gaps, not a renumbered one.
    """

    def __init__(self, path: Path, part: Part, chunks: Sequence[Chunk]) -> None:
        self.path = path
        self.part = part
        self.chunks = list(chunks)
        self.vectors = sum(chunk.n_rows for chunk in self.chunks)
        self.d = part.manifest.d
        self._kept_tokens: tuple[int, npt.NDArray[np.int32]] | None = None

    def rows(self, chunk: Chunk) -> npt.NDArray[Any]:
        """Rows (n_rows, d) of a chunk in the store's dtype, mapped and read-only, CRC checked.

        Raises DamagedStoreError where the file is missing, cut short, or fails its checksum.
        """
        return map_rows(self.path, chunk)

    def norms(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        """L2 norms (n_rows,) of a chunk's rows."""
        key = chunk.statistics_keys()["norms"]
        return map_checked(self.path, key, np.dtype("<f4"))[: chunk.n_rows]

    def statistic(self, chunk: Chunk, name: str) -> npt.NDArray[np.float64]:
        """`mean` (d,), `mean_squared_norm` (1,) or `largest_norm` (1,) of a chunk."""
        return map_checked(self.path, chunk.statistics_keys()[name], np.dtype("<f8"))

    @cached_property
    def median_norm(self) -> float:
        """Exact median of the norms of all rows, in constant memory."""
        return exact_median(lambda: (self.norms(chunk) for chunk in self.chunks))

    def rows_over(self, bound: float) -> int:
        """How many rows have a norm above `bound`."""
        exact = np.float64(bound)  # or numpy would round it to the norms' float32
        return sum(int((self.norms(chunk) > exact).sum()) for chunk in self.chunks)

    @cached_property
    def largest_norm(self) -> float:
        """The largest norm of any row."""
        return max(float(self.statistic(chunk, "largest_norm")[0]) for chunk in self.chunks)

    @cached_property
    def mean(self) -> npt.NDArray[np.float64]:
        """(d,), mean over all rows."""
        total = np.zeros(self.d, np.float64)
        for chunk in self.chunks:
            total += chunk.n_rows * self.statistic(chunk, "mean")
        return total / self.vectors

    @cached_property
    def mean_squared_norm(self) -> float:
        """E||x||^2 over all rows."""
        total = sum(c.n_rows * self.statistic(c, "mean_squared_norm")[0] for c in self.chunks)
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
            import zarr

            # zarr would read a missing chunk as zeros, so the file is looked at first.
            checked_bytes(self.path, self.part.token_keys()[number])
            array = zarr.open_array(self.path / f"{self.part.prefix}tokens", mode="r")
            first = number * TOKEN_CONTEXTS_A_CHUNK
            block = np.asarray(array[first : first + TOKEN_CONTEXTS_A_CHUNK], dtype=np.int32)
            self._kept_tokens = number, block
        return self._kept_tokens[1]

    def _contexts(self) -> ContextRecord:
        contexts = self.part.manifest.contexts
        if contexts is None:
            raise StoreError(f"{self.path}: was made from arrays and holds no tokens")
        return contexts


class Store:
    """An open store. `training` and `evaluation` (None where nothing is held out) are its parts."""

    def __init__(self, path: Path, manifest: Manifest, chunks: Sequence[Chunk]) -> None:
        self.path = path
        self.manifest = manifest
        self.chunks = list(chunks)
        self.d = manifest.d
        parts = {
            part.name: StorePart(path, part, [c for c in chunks if c.part.prefix == part.prefix])
            for part in manifest.parts()
        }
        self.training = parts["training"]
        self.evaluation = parts.get("evaluation")

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) of what the rows are: their recipe, or, where a store was made from
        arrays, the checksums of its chunks. Not the path, and not how much is there yet."""
        digest = hashlib.sha256(json.dumps(self.manifest.identity, sort_keys=True).encode())
        if self.manifest.origin == "arrays":
            for chunk in self.chunks:
                with (self.path / chunk.key).open("rb") as file:
                    file.seek(-CRC_BYTES, os.SEEK_END)
                    digest.update(file.read())
        return digest.hexdigest()

    def only(self, keys: Sequence[str]) -> "Store":
        """The same store, seen as if it had these chunks alone: what a run was begun with."""
        wanted = set(keys)
        return Store(self.path, self.manifest, [c for c in self.chunks if c.key in wanted])


def open_store(path: str | Path, allow_partial: bool = False) -> Store:
    """Open a store for reading, having listed every file that it should have.

    Raises StoreError where the folder is no store, or is unfinished and `allow_partial` is off;
    DamagedStoreError where a chunk of a finished store is missing, a file has a wrong size, or an
    array's document is not as the manifest says.
    """
    path = Path(path)
    manifest = read_manifest(path)
    chunks = manifest.chunks()
    present = [chunk for chunk in chunks if (path / chunk.key).exists()]
    _refuse_unfinished(path, manifest, allow_partial, f"{len(present)} of {len(chunks)} chunks")
    problems: dict[str, list[str]] = {}
    for key, what in document_problems(path, manifest):
        problems.setdefault(what, []).append(key)
    missing = [k for part in manifest.parts() for k in part.token_keys() if not (path / k).exists()]
    if manifest.complete:
        missing += _missing_files(path, chunks)
    if missing:
        problems.setdefault("missing", []).extend(missing)
    wrong = [c.key for c in present if (path / c.key).stat().st_size != c.file_bytes]
    if wrong:
        problems[f"not {chunks[0].file_bytes} bytes long (cut short or foreign)"] = wrong
    if problems:
        raise damaged(path, problems)
    if not manifest.complete:  # a chunk without its statistics counts as absent until it has them
        present = [chunk for chunk in present if not _missing_files(path, [chunk])]
    return Store(path, manifest, present)


def map_rows(path: Path, chunk: Chunk) -> npt.NDArray[Any]:
    """`StorePart.rows` for a chunk of the store at `path`."""
    manifest = chunk.part.manifest
    values = map_checked(path, chunk.key, NUMPY_DTYPES[manifest.store_dtype])
    return values.reshape(manifest.rows_per_chunk, manifest.d)[: chunk.n_rows]


def map_checked(path: Path, key: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The values (flat, read-only, mapped) of an uncompressed chunk file, its CRC-32C checked."""
    raw = checked_bytes(path, key)
    return raw[:-CRC_BYTES].view(dtype)


def checked_bytes(path: Path, key: str) -> npt.NDArray[np.uint8]:
    """The file `key` mapped as bytes, the last four being the right checksum of the others.

    Raises DamagedStoreError, naming the file by its path in the store, where it is not so.
    """
    try:
        raw = np.asarray(np.memmap(path / key, dtype=np.uint8, mode="r"))
    except FileNotFoundError:
        raise damaged(path, {"missing": [key]}) from None
    except ValueError:  # numpy cannot map an empty file
        raise damaged(path, {"empty": [key]}) from None
    except OSError as error:
        raise damaged(path, {f"unreadable ({error.strerror})": [key]}) from None
    checksum = int.from_bytes(raw[-CRC_BYTES:].tobytes(), "little")
    if len(raw) <= CRC_BYTES or google_crc32c.value(raw[:-CRC_BYTES]) != checksum:
        raise damaged(path, {"corrupt (its checksum does not match its content)": [key]})
    return raw


def damaged(path: Path, problems: Mapping[str, Sequence[str]]) -> DamagedStoreError:
    """The error for a store's files: what is wrong, and with which, the first few named."""
    texts = []
    for what, keys in problems.items():
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        texts.append(f"{', '.join(keys[:_SHOWN])}{more}: {what}")
    return DamagedStoreError(
        f"{path}: {'; '.join(texts)}; run `cpsae verify {path} --repair`, then the same "
        "`cpsae extract` command again computes what is gone",
        [key for keys in problems.values() for key in keys],
    )


def _refuse_unfinished(path: Path, manifest: Manifest, allow_partial: bool, there: str) -> None:
    again = "run the same `cpsae extract` command again"
    if manifest.origin == "arrays":
        again = "remove it and write it again"
    if not manifest.complete and not allow_partial:
        raise StoreError(
            f"{path}: is unfinished ({there}); {again} to finish it, or use --allow-partial"
        )
    if not manifest.tokens_complete:
        raise StoreError(f"{path}: has no tokens yet; {again}")


def _missing_files(path: Path, chunks: Sequence[Chunk]) -> list[str]:
    keys = [key for chunk in chunks for key in (chunk.key, *chunk.statistics_keys().values())]
    return [key for key in keys if not (path / key).exists()]
