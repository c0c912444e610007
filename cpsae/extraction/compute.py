"""The loop of stage 1: chunk after chunk through the model, the device never waiting for the disk.

Forward passes run in the calling thread; rows go to (page-locked) host buffers on a stream of
their own, and threads turn whole buffers into committed chunks.
"""

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from cpsae.config.extraction import Site
from cpsae.extraction.preflight import memory_errors
from cpsae.models import TruncatedModel
from cpsae.store import Chunk, Store, StoreWriter
from cpsae.tensors import TORCH_DTYPES, array_of

_WRITERS = 2
_BUFFERS, _BUFFERS_OF_MANY = 3, 2
"""Sets of buffers: one is filled while others are written; fewer where a set is many."""

Piece = Mapping[Site, Chunk]
"""The same contexts in each of some stores: chunks of one part and number, by their site."""
_Buffers = dict[Site, torch.Tensor]


class ChunkPipeline:
    """Computes chunks of one or several stores with one model and commits them."""

    def __init__(
        self, model: TruncatedModel, store: Store, writers: Mapping[Site, StoreWriter]
    ) -> None:
        """store: any of them, for the tokens; writers: of each, by its site."""
        self.model = model
        self.writers = dict(writers)
        self.manifest = store.manifest
        self.parts = {"training": store.training, "evaluation": store.evaluation}
        self.dtype = TORCH_DTYPES[self.manifest.store_dtype]
        cuda = model.device.type == "cuda"
        self._copies = torch.cuda.Stream(model.device) if cuda else None  # type: ignore[no-untyped-call]
        self._buffers: queue.Queue[_Buffers] = queue.Queue()
        shape = (self.manifest.rows_per_chunk, self.manifest.d)
        self._n_buffers = buffer_sets(len(self.writers))
        for _ in range(self._n_buffers):
            self._buffers.put(
                {s: torch.empty(shape, dtype=self.dtype, pin_memory=cuda) for s in self.writers}
            )

    def run(self, pieces: Sequence[Piece], on_piece: Callable[[Piece], None]) -> None:
        """Compute and commit `pieces` in order; `on_piece` is called as each is on the disk.

        Raises NonFiniteError, DiskError or what the model raises; chunks committed before stay.
        """
        pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="writer")
        waiting: list[Future[Piece]] = []
        try:
            for piece in pieces:
                buffers = self._buffers.get()
                ready = self._compute(piece, buffers)
                waiting.append(pool.submit(self._commit, piece, buffers, ready))
                while waiting and (waiting[0].done() or len(waiting) >= self._n_buffers):
                    on_piece(waiting.pop(0).result())
            while waiting:
                on_piece(waiting.pop(0).result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _compute(self, piece: Piece, buffers: _Buffers) -> "torch.cuda.Event | None":
        """Fill `buffers` with the rows of a piece; on a GPU, give the event of the last copy."""
        chunk = next(iter(piece.values()))
        contexts, part = self.manifest.contexts, self.parts[chunk.part.name]
        assert contexts is not None and part is not None, "extract refuses stores made from arrays"
        tokens = torch.from_numpy(part.tokens(chunk.contexts))
        if self._copies is not None:
            tokens = tokens.pin_memory()
        filled = 0
        for batch in torch.split(tokens, contexts.batch_contexts):
            with memory_errors(self.model.description.name, self.model.device):
                found = self.model.rows(batch)
            count = 0
            for site in piece:
                rows = found[site][:, contexts.first_position :].reshape(-1, self.manifest.d)
                rows = rows[: chunk.n_rows - filled].to(self.dtype)
                count = len(rows)
                self._copy(rows, buffers[site][filled : filled + count])
            filled += count
        if self._copies is None:
            return None
        ready = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        ready.record(self._copies)
        return ready

    def _copy(self, rows: torch.Tensor, target: torch.Tensor) -> None:
        if self._copies is not None:
            self._copies.wait_stream(torch.cuda.current_stream(self.model.device))
            rows.record_stream(self._copies)
        with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
            target.copy_(rows, non_blocking=True)

    def _commit(self, piece: Piece, buffers: _Buffers, ready: "torch.cuda.Event | None") -> Piece:
        if ready is not None:
            ready.synchronize()
        for site, chunk in piece.items():
            self.writers[site].write(chunk, array_of(buffers[site])[: chunk.n_rows])
        self._buffers.put(buffers)
        return piece


def buffer_sets(n_sites: int) -> int:
    """How many sets of buffers a pipeline holds."""
    return _BUFFERS if n_sites == 1 else _BUFFERS_OF_MANY
