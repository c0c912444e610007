"""Writing a store: created with its tokens, filled chunk by chunk in any order, then completed.

A chunk file that exists is whole, so what is left to do is what is missing. Statistics go to disk
before their chunk. Whoever writes holds `writer_lock` (see `cpsae.durable`) for its group.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cpsae.durable import disk_errors, fsync_folder, remove_leftovers, write_atomic
from cpsae.errors import NonFiniteError, StoreError
from cpsae.store.documents import (
    encode_chunk,
    write_manifest,
    write_skeleton,
)
from cpsae.store.layout import (
    CRC_BYTES,
    NUMPY_DTYPES,
    TOKEN_CONTEXTS_A_CHUNK,
    ArraySpec,
    Chunk,
    Manifest,
)
from cpsae.store.reader import map_rows
from cpsae.store.statistics import ChunkStatistics


class StoreWriter:
    """Fills a store whose manifest is given; worker `rank` of `n_workers` owns every n-th chunk."""

    def __init__(self, path: Path, manifest: Manifest, rank: int = 0, n_workers: int = 1) -> None:
        self.path = path
        self.manifest = manifest
        self.chunks = manifest.chunks()
        self.own_chunks = self.chunks[rank::n_workers]
        self._alone = n_workers == 1

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> "StoreWriter":
        """Write the documents of an empty store. Resumable: writing them again changes nothing."""
        write_skeleton(path, manifest)
        return cls(path, manifest)

    def write_tokens(self, tokens: dict[str, npt.NDArray[np.int32]]) -> None:
        """Store the contexts (contexts, T) of each part, by its name, and mark them whole."""
        for part in self.manifest.parts():
            spec = _spec(part.arrays(), f"{part.prefix}tokens")
            if tokens[part.name].shape != spec.shape:
                raise ValueError(f"{part.name}: {tokens[part.name].shape}, expected {spec.shape}")
            for number, key in enumerate(part.token_keys()):
                first = number * TOKEN_CONTEXTS_A_CHUNK
                block = tokens[part.name][first : first + TOKEN_CONTEXTS_A_CHUNK]
                write_atomic(self.path / key, encode_chunk(block, spec))
        self._mark(tokens_complete=True)

    def missing(self, chunks: Iterable[Chunk] | None = None) -> list[Chunk]:
        """Those of `chunks` (default: this worker's own) that have no file yet."""
        candidates = self.own_chunks if chunks is None else chunks
        return [chunk for chunk in candidates if not (self.path / chunk.key).exists()]

    def tidy(self) -> None:
        """Before a worker begins: compute again the statistics that are absent from chunks that
        are there, and, where it is the only worker, remove what killed writers left behind.

        Of several workers none does: the lock is the leader's, so a temporary file may be one that
        another group's worker is writing. `finish` removes them, when nobody writes any more.
        """
        if self._alone:
            remove_leftovers(self.path)
        for chunk in self.own_chunks:
            if (self.path / chunk.key).exists() and not self._has_statistics(chunk):
                self._write_statistics(chunk, ChunkStatistics.of(map_rows(self.path, chunk)))

    def write(self, chunk: Chunk, rows: npt.NDArray[Any]) -> ChunkStatistics:
        """Commit one chunk: rows (chunk.n_rows, d) in the store's dtype.

        Raises NonFiniteError, and writes nothing, where a row holds a NaN or an Inf.
        """
        dtype = NUMPY_DTYPES[self.manifest.store_dtype]
        if rows.shape != (chunk.n_rows, self.manifest.d) or rows.dtype != dtype:
            raise ValueError(
                f"{chunk.key}: rows are {rows.dtype} {rows.shape}, "
                f"expected {dtype} {(chunk.n_rows, self.manifest.d)}"
            )
        statistics = ChunkStatistics.of(rows)
        self._refuse_non_finite(chunk, statistics)
        self._write_statistics(chunk, statistics)
        padding = np.zeros((self.manifest.rows_per_chunk - chunk.n_rows, self.manifest.d), dtype)
        _write_with_crc(self.path / chunk.key, rows, padding)
        return statistics

    def finish(self) -> None:
        """Remove leftovers, set the completion mark. StoreError where a chunk is missing."""
        missing = self.missing(self.chunks)
        if missing:
            raise StoreError(f"{self.path}: {len(missing)} chunks are missing: not complete")
        remove_leftovers(self.path)
        self._mark(complete=True)

    def discard(self, keys: Iterable[str]) -> None:
        """Remove files by their path in the store, and the completion mark with them."""
        self._mark(complete=False)
        for key in keys:
            with disk_errors(self.path / key):
                (self.path / key).unlink(missing_ok=True)
                if (self.path / key).parent.is_dir():
                    fsync_folder((self.path / key).parent)

    def _remedy(self) -> str:
        if self.manifest.store_dtype == "float16":
            return "float16 ends at 65504: take --store-dtype bfloat16, with --fresh"
        return "check the model, or try another --dtype or --attention"

    def _mark(self, **marks: bool) -> None:
        self.manifest = self.manifest.model_copy(update=marks)
        write_manifest(self.path, self.manifest)

    def _has_statistics(self, chunk: Chunk) -> bool:
        return all((self.path / key).exists() for key in chunk.statistics_keys().values())

    def _write_statistics(self, chunk: Chunk, statistics: ChunkStatistics) -> None:
        keys = chunk.statistics_keys()
        norms = np.zeros(self.manifest.rows_per_chunk, np.float32)
        norms[: chunk.n_rows] = statistics.norms
        _write_with_crc(self.path / keys["norms"], norms)
        _write_with_crc(self.path / keys["mean"], statistics.mean)
        _write_with_crc(self.path / keys["count"], np.array([statistics.count], np.int64))
        for name in ("mean_squared_norm", "largest_norm"):
            value = np.array([getattr(statistics, name)], np.float64)
            _write_with_crc(self.path / keys[name], value)

    def _refuse_non_finite(self, chunk: Chunk, statistics: ChunkStatistics) -> None:
        bad = np.flatnonzero(~np.isfinite(statistics.norms))
        if not bad.size:
            return
        hook = self.manifest.hook
        where = f" of layer {hook.layer}" if hook else ""
        context = ""
        if self.manifest.contexts:
            context = f" (context {(chunk.first_row + int(bad[0])) // self.manifest.contexts.rows})"
        raise NonFiniteError(
            f"{chunk.key}: {bad.size} rows{where} hold NaN or Inf, the first is row {bad[0]}"
            f"{context}; nothing of this chunk was written: {self._remedy()}"
        )


def _write_with_crc(path: Path, *arrays: npt.NDArray[Any]) -> None:
    # C order as raw bytes; a zero-length array adds nothing to either sum or file.
    raw = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    checksum = 0
    for piece in raw:
        if piece.size:
            piece.flags.writeable = False  # the checksum's C code takes read-only buffers alone
            checksum = google_crc32c.extend(checksum, piece)
    write_atomic(path, *raw, checksum.to_bytes(CRC_BYTES, "little"))


def _spec(specs: list[ArraySpec], name: str) -> ArraySpec:
    return next(spec for spec in specs if spec.name == name)
