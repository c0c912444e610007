"""The loop of stage 1: chunk after chunk through the model, the device never waiting for the disk.

Forward passes run in the calling thread; rows go to (page-locked) host buffers on a stream of
their own, and threads turn whole buffers into committed chunks.
"""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from cpsae.extraction.preflight import memory_errors
from cpsae.models import TruncatedModel
from cpsae.store import Chunk, Store, StoreWriter
from cpsae.tensors import TORCH_DTYPES, array_of

_BUFFERS = 3
_WRITERS = 2


class ChunkPipeline:
    """Computes chunks of one store with one model and commits them."""

    def __init__(self, model: TruncatedModel, store: Store, writer: StoreWriter) -> None:
        self.model = model
        self.writer = writer
        self.manifest = writer.manifest
        self.parts = {"training": store.training, "evaluation": store.evaluation}
        self.dtype = TORCH_DTYPES[self.manifest.store_dtype]
        cuda = model.device.type == "cuda"
        self._copies = torch.cuda.Stream(model.device) if cuda else None  # type: ignore[no-untyped-call]
        self._buffers: queue.Queue[torch.Tensor] = queue.Queue()
        shape = (self.manifest.rows_per_chunk, self.manifest.d)
        for _ in range(_BUFFERS):
            self._buffers.put(torch.empty(shape, dtype=self.dtype, pin_memory=cuda))

    def run(self, chunks: Sequence[Chunk], on_chunk: Callable[[Chunk], None]) -> None:
        """Compute and commit `chunks` in order; `on_chunk` is called as each is on the disk.

        Raises NonFiniteError, DiskError or what the model raises; chunks committed before stay.
        """
        pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="writer")
        waiting: list[Future[Chunk]] = []
        try:
            for chunk in chunks:
                buffer = self._buffers.get()
                ready = self._compute(chunk, buffer)
                waiting.append(pool.submit(self._commit, chunk, buffer, ready))
                while waiting and (waiting[0].done() or len(waiting) >= _BUFFERS):
                    on_chunk(waiting.pop(0).result())
            while waiting:
                on_chunk(waiting.pop(0).result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _compute(self, chunk: Chunk, buffer: torch.Tensor) -> "torch.cuda.Event | None":
        """Fill `buffer` with the rows of `chunk`; on a GPU, give the event of the last copy."""
        contexts = self.manifest.contexts
        part = self.parts[chunk.part.name]
        assert contexts is not None and part is not None, "extract refuses stores made from arrays"
        tokens = torch.from_numpy(part.tokens(chunk.contexts))
        if self._copies is not None:
            tokens = tokens.pin_memory()
        filled = 0
        for batch in torch.split(tokens, contexts.batch_contexts):
            with memory_errors(self.model.description.name, self.model.device):
                hidden = self.model.activations(batch)
            rows = hidden[:, contexts.first_position :].reshape(-1, self.manifest.d)
            rows = rows[: chunk.n_rows - filled].to(self.dtype)
            self._copy(rows, buffer[filled : filled + len(rows)])
            filled += len(rows)
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

    def _commit(
        self, chunk: Chunk, buffer: torch.Tensor, ready: "torch.cuda.Event | None"
    ) -> Chunk:
        if ready is not None:
            ready.synchronize()
        self.writer.write(chunk, array_of(buffer)[: chunk.n_rows])
        self._buffers.put(buffer)
        return chunk
