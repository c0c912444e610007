"""Writing a store: created with its tokens, filled chunk by chunk in any order, then completed.

A chunk file that exists is whole, so what is left to do is what is missing. Statistics go to disk
before their chunk. Whoever writes holds `writer_lock` (see `cpsae.locks`) for its group.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cpsae.errors import NonFiniteError, StoreError
from cpsae.store.bucket import Bucket, Folder
from cpsae.store.integrity import map_rows
from cpsae.store.layout import CRC_BYTES, NUMPY_DTYPES, TOKEN_CONTEXTS_A_CHUNK, Chunk, Manifest
from cpsae.store.listing import Listing
from cpsae.store.metadata import encode_tokens, refuse_too_many, write_manifest, write_skeleton
from cpsae.store.statistics import ChunkStatistics


class StoreWriter:
    """Fills a store whose manifest is given; worker `rank` of `n_workers` owns every n-th chunk."""

    def __init__(
        self, place: Path | Bucket, manifest: Manifest, rank: int = 0, n_workers: int = 1
    ) -> None:
        """place: the store's folder, or whatever bucket it is in."""
        self.bucket: Bucket = Folder(place) if isinstance(place, Path) else place
        self.manifest = manifest
        self.chunks = manifest.chunks()
        self.own_chunks = self.chunks[rank::n_workers]
        self._alone = n_workers == 1

    @classmethod
    def create(cls, place: Path | Bucket, manifest: Manifest) -> "StoreWriter":
        """Write the documents of an empty store. Resumable: writing them again changes nothing.
        Raises StoreError where it would have too many chunks."""
        refuse_too_many(str(place) if isinstance(place, Path) else place.name, manifest)
        writer = cls(place, manifest)
        write_skeleton(writer.bucket, manifest)
        return writer

    def write_tokens(self, tokens: dict[str, npt.NDArray[np.int32]]) -> None:
        """Store the contexts (contexts, T) of each part, by its name, and mark them whole."""
        for part in self.manifest.parts():
            spec = part.tokens_array()
            if tokens[part.name].shape != spec.shape:
                raise ValueError(f"{part.name}: {tokens[part.name].shape}, expected {spec.shape}")
            for number, key in enumerate(part.token_keys()):
                first = number * TOKEN_CONTEXTS_A_CHUNK
                block = tokens[part.name][first : first + TOKEN_CONTEXTS_A_CHUNK]
                self.bucket.write(key, encode_tokens(block, spec))
        self._mark(tokens_complete=True)

    def missing(self, chunks: Iterable[Chunk] | None = None) -> list[Chunk]:
        """Those of `chunks` (default: this worker's own) that are not there yet."""
        return Listing(self.bucket, self.own_chunks if chunks is None else chunks).missing()

    def tidy(self) -> None:
        """Before a worker begins: compute again the statistics that are absent from rows that are
        there, and, where it is the only worker, remove what killed writers left behind.

        Of several workers none does: the lock is the leader's, so a temporary file may be one that
        another group's worker is writing. `finish` removes them, when nobody writes any more.
        """
        if self._alone:
            self.bucket.tidy()
        listing = Listing(self.bucket, self.own_chunks)
        for chunk in listing.missing():
            if listing.has_rows(chunk):
                self._write_statistics(chunk, ChunkStatistics.of(map_rows(self.bucket, chunk)))

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
        self._write_with_crc(chunk.key, rows, padding)
        return statistics

    def finish(self) -> None:
        """Remove leftovers, make all durable, set the completion mark. StoreError where a chunk or
        its statistics are missing."""
        missing = self.missing(self.chunks)
        if missing:
            raise StoreError(f"{self.bucket.name}: {len(missing)} chunks are missing: not complete")
        self.bucket.tidy()
        self._mark(complete=True)

    def discard(self, keys: Iterable[str]) -> None:
        """Remove objects by their keys, and the completion mark before them."""
        self._mark(complete=False)
        for key in keys:
            self.bucket.remove(key)

    def _remedy(self) -> str:
        model = self.manifest.model
        if model is not None and model.dtype == "float16":
            return "float16 ends at 65504: run again with --dtype bfloat16 (or float32) and --fresh"
        if self.manifest.store_dtype == "float16":
            return "float16 ends at 65504: take --store-dtype bfloat16, with --fresh"
        return "check the model, or try another --dtype or --attention, with --fresh"

    def _mark(self, **marks: bool) -> None:
        self.manifest = self.manifest.model_copy(update=marks)
        write_manifest(self.bucket, self.manifest)

    def _write_statistics(self, chunk: Chunk, statistics: ChunkStatistics) -> None:
        norms = np.zeros(self.manifest.rows_per_chunk, np.float32)
        norms[: chunk.n_rows] = statistics.norms
        self._write_with_crc(chunk.norms_key, norms)
        self._write_with_crc(chunk.summary_key, statistics.summary.as_row())

    def _write_with_crc(self, key: str, *arrays: npt.NDArray[Any]) -> None:
        # C order as raw bytes; a zero-length array adds nothing to either sum or object.
        raw = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
        checksum = 0
        for piece in raw:
            if piece.size:
                piece.flags.writeable = False  # the checksum's C code takes read-only buffers alone
                checksum = google_crc32c.extend(checksum, piece)
        self.bucket.write(key, *raw, checksum.to_bytes(CRC_BYTES, "little"))

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
