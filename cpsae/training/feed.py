"""Batches of shuffled rows from a store's memory-mapped chunks, in constant memory.

Epoch 0 goes through the chunks as they are stored, each later one in a seeded order, a window of
several at a time; the rows of a window are permuted together. Contexts were shuffled globally when
the store was made, so a window is a fair sample of the corpus, and a store that is still growing
can be followed. The order is a function of (seed, epoch, window) alone, whatever the number of
threads, so a feed can be continued exactly from its `position`.
"""

import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from cpsae.errors import StoreError
from cpsae.store.bound import norm_bound as find_norm_bound
from cpsae.store.layout import Chunk
from cpsae.store.part import StorePart
from cpsae.tensors import NUMPY_BITS, TORCH_BITS, TORCH_DTYPES
from cpsae.training.resident import ResidentRows


@dataclass(frozen=True)
class FeedPosition:
    """Where the next batch begins: row `row` of the shuffled window `window` of epoch `epoch`."""

    epoch: int = 0
    window: int = 0
    row: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what is no position, as a damaged checkpoint may hold."""
        for name, value in vars(self).items():
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}, expected a whole number")


@dataclass(frozen=True)
class _Window:
    """Mapped chunks, or where each is on the device; the window's row that each begins at, and the
    permuted rows to serve."""

    chunks: list[npt.NDArray[Any]]
    on_device: npt.NDArray[np.int64] | None
    starts: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


class ActivationFeed(IterableDataset[torch.Tensor]):
    """An endless iterable of batches: tensors (batch_size, d) of raw rows in the store's dtype.

    Use it in any training loop: `for batch in ActivationFeed(open_store("acts.zarr").training)`.
    Rows whose norm is over `max_norm` times the median norm are left out (0: none are; see
    `cpsae.store.bound`), or over `norm_bound` where that is given; the batch is then filled from
    the next rows, and an epoch's last batch from the next epoch's first rows.
    With `share` a batch is these of its rows alone, from one to another: several processes each
    take a part of the same batches.
    With `pin_memory` the tensors are page-locked, for asynchronous copies to a GPU; with
    `resident`, which holds the part's rows on a device, they are there.
    It reads in threads of its own; a DataLoader around it takes `batch_size=None, num_workers=0`.
    Raises DamagedStoreError, before any row of it is served, at a chunk that fails its checksum,
    and StoreError where there are no rows.
    """

    def __init__(
        self,
        part: StorePart,
        batch_size: int = 2048,
        *,
        seed: int = 0,
        max_norm: float = 10.0,
        norm_bound: float | None = None,
        window_chunks: int = 8,
        position: FeedPosition | None = None,
        share: tuple[int, int] | None = None,
        pin_memory: bool = False,
        resident: ResidentRows | None = None,
        read_ahead: int = 4,
        threads: int = 2,
    ) -> None:
        super().__init__()
        if min(batch_size, window_chunks, threads) < 1 or read_ahead < 0:
            raise ValueError("batch_size, window_chunks and threads are from 1, read_ahead from 0")
        if not part.vectors:
            raise StoreError(
                f"{part.bucket.name}: holds no {part.name} rows yet; extract some first"
            )
        self.part = part
        self.batch_size = batch_size
        self.seed = seed
        self.share = share or (0, batch_size)
        bound = find_norm_bound(part, max_norm) if norm_bound is None else norm_bound
        self.norm_bound = np.float64(bound)
        self.window_chunks = window_chunks
        self.position = position or FeedPosition()
        """Where the batch after the last one served begins."""
        self.pin_memory = pin_memory
        self.resident = resident
        self.read_ahead = read_ahead
        self.threads = threads
        self.n_windows = -(-len(part.chunks) // window_chunks)
        self.dtype = TORCH_DTYPES[part.manifest.store_dtype]

    def __iter__(self) -> Generator[torch.Tensor, None, None]:
        return self.stream()

    def stream(self, *, recycle: bool = False) -> Generator[torch.Tensor, None, None]:
        """Batches from `position` on, for ever.

        recycle: a batch may be used until the next one is asked for, whose rows then may take its
        memory, which spares the first touch of fresh memory; page-locked memory is recycled by
        torch itself, as copies to a GPU end.
        """
        if get_worker_info() is not None:
            raise RuntimeError("every worker would serve the same rows: take num_workers=0")
        is_finalizing = sys.is_finalizing
        recycle = recycle and not self.pin_memory and self.resident is None
        spare = self.read_ahead + 1 if recycle else 0
        ring = [self._fresh() for _ in range(spare)]
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="feed")
        try:
            queue: deque[tuple[Future[torch.Tensor], FeedPosition]] = deque()
            for number, (pieces, after) in enumerate(self._plans(pool)):
                # While a batch is out, `read_ahead` others are being filled: the buffer that comes
                # round again is that of the batch before, which is given back by now.
                if self.resident is not None:
                    filled = pool.submit(self._taken, pieces, self.resident)
                else:
                    target = ring[number % spare] if spare else self._fresh()
                    filled = pool.submit(self._gather, pieces, target)
                queue.append((filled, after))
                if len(queue) > self.read_ahead:
                    yield self._next(queue)
        finally:
            # An iterator that nobody closed ends with the interpreter: its threads have ended then,
            # and modules are gone, so that this function is looked up before.
            if not is_finalizing():
                self.part.stop_waiting()
                pool.shutdown(wait=True, cancel_futures=True)

    def _next(self, queue: deque[tuple[Future[torch.Tensor], FeedPosition]]) -> torch.Tensor:
        future, after = queue.popleft()
        batch = future.result()
        self.position = after
        return batch

    def _plans(
        self, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[tuple[_Window, npt.NDArray[np.int64]]], FeedPosition]]:
        """For each batch the rows to gather, by window, and the position after it."""
        pieces: list[tuple[_Window, npt.NDArray[np.int64]]] = []
        wanted = self.batch_size
        for position, window in self._windows(pool):
            row = position.row
            while row + wanted <= len(window.order):
                pieces.append((window, window.order[row : row + wanted]))
                row += wanted
                yield pieces, FeedPosition(position.epoch, position.window, row)
                pieces, wanted = [], self.batch_size
            if row < len(window.order):
                pieces.append((window, window.order[row:]))
                wanted -= len(window.order) - row

    def _windows(self, pool: ThreadPoolExecutor) -> Iterator[tuple[FeedPosition, _Window]]:
        """Windows from `position` on, for ever; the next one is mapped while one is served."""
        current = self.position
        loading = pool.submit(self._open, current)
        empty_in_a_row = 0
        while True:
            window = loading.result()
            empty_in_a_row = 0 if len(window.order) else empty_in_a_row + 1
            # So many windows hold a whole epoch between them, wherever in one this began.
            if empty_in_a_row == 2 * self.n_windows:
                raise StoreError(
                    f"{self.part.bucket.name}: max_norm leaves no row to train on; raise it"
                )
            following = self._after(current)
            loading = pool.submit(self._open, following)
            yield current, window
            current = following

    def _after(self, position: FeedPosition) -> FeedPosition:
        last = position.window + 1 == self.n_windows
        return FeedPosition(position.epoch + last, 0 if last else position.window + 1, 0)

    def _open(self, position: FeedPosition) -> _Window:
        chunks = self._chunks(position)
        self.part.prefetch([*chunks, *self._chunks(self._after(position))])
        rows, on_device = [], None
        if self.resident is None:
            rows = [self.part.rows(chunk) for chunk in chunks]
        else:
            on_device = np.array([self.resident.put(chunk) for chunk in chunks], np.int64)
        kept = np.concatenate([self.part.norms(chunk) <= self.norm_bound for chunk in chunks])
        starts = np.cumsum([0, *(chunk.n_rows for chunk in chunks)])
        shuffle = np.random.default_rng([self.seed, position.epoch, position.window, 1])
        order = shuffle.permutation(np.flatnonzero(kept))
        bits = NUMPY_BITS[self.dtype.itemsize]
        return _Window([mapped.view(bits) for mapped in rows], on_device, starts, order)

    def _chunks(self, position: FeedPosition) -> list[Chunk]:
        first = position.window * self.window_chunks
        return self.chunk_order(position.epoch)[first : first + self.window_chunks]

    def chunk_order(self, epoch: int) -> list[Chunk]:
        """All chunks, in the order that an epoch goes through them."""
        if epoch == 0:
            return self.part.chunks
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.part.chunks))
        return [self.part.chunks[i] for i in order]

    def _fresh(self) -> torch.Tensor:
        """New memory for the rows of a batch that are served, (rows, d) of bits."""
        shape = (self.share[1] - self.share[0], self.part.d)
        return torch.empty(shape, dtype=TORCH_BITS[self.dtype.itemsize], pin_memory=self.pin_memory)

    def _gather(
        self, pieces: list[tuple[_Window, npt.NDArray[np.int64]]], batch: torch.Tensor
    ) -> torch.Tensor:
        """Copy the rows of one batch together, into `batch`. Within a piece they go by chunk and
        row: which rows share a batch is random, and reading them in file order is faster."""
        target = batch.numpy()
        filled = 0
        for window, ordered in self._shared(pieces):
            bounds = np.searchsorted(ordered, window.starts)
            for number, rows in enumerate(window.chunks):
                inside = ordered[bounds[number] : bounds[number + 1]] - window.starts[number]
                if len(inside):
                    out = target[filled : filled + len(inside)]
                    np.take(rows, inside, axis=0, out=out, mode="clip")
                    filled += len(inside)
        return batch.view(self.dtype)

    def _taken(
        self, pieces: list[tuple[_Window, npt.NDArray[np.int64]]], resident: ResidentRows
    ) -> torch.Tensor:
        """The same rows in the same order, on the device."""
        numbers = []
        for window, ordered in self._shared(pieces):
            chunk = np.searchsorted(window.starts, ordered, side="right") - 1
            assert window.on_device is not None
            numbers.append(ordered - window.starts[chunk] + window.on_device[chunk])
        return resident.take(np.concatenate(numbers))

    def _shared(
        self, pieces: list[tuple[_Window, npt.NDArray[np.int64]]]
    ) -> Iterator[tuple[_Window, npt.NDArray[np.int64]]]:
        """Of each piece the rows in this process's share, in the order that they are served in."""
        first, end = self.share
        for window, picked in pieces:
            yield window, np.sort(picked)[max(first, 0) : max(end, 0)]
            first, end = first - len(picked), end - len(picked)
