"""Shuffled batches from a store against copying as many bytes, against bare checks and bare
gathering of the same rows, and against other readers of its chunks."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import google_crc32c
import ml_dtypes
import numpy as np
import torch
import zarr

from cpsae.bench.side_by_side import Table, Work, lines, measure, process_time
from cpsae.events import OnEvent, ignore
from cpsae.store import open_store, write_store
from cpsae.store.part import StorePart
from cpsae.training.feed import ActivationFeed

CHUNK_ROWS, CHUNKS = 64 * 127, 24
"""24 of the paper's chunks."""
MEMCPY, BARE = "memcpy", "bare checks and gathering"


def bench_feed(
    d: int,
    batch: int,
    window: int = 4,
    rounds: int = 5,
    folder: Path | None = None,
    on_event: OnEvent = ignore,
) -> Table:
    """Rows (d,) in bfloat16, from the page cache; process time, so that its threads count. The
    store is made in a folder of its own in `folder`, and removed afterwards."""
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=folder))
        path = Path(place) / "acts.zarr"
        bits = np.random.default_rng(0).integers(0, 1 << 14, (CHUNK_ROWS * CHUNKS, d), np.uint16)
        write_store(path, bits.view(ml_dtypes.bfloat16), bits[:64].view(ml_dtypes.bfloat16))
        part = open_store(path).training
        batches = part.vectors // batch
        feed = ActivationFeed(part, batch, max_norm=0, window_chunks=window).stream(recycle=True)
        stack.callback(feed.close)
        _take(feed, batches)

        def first_epoch() -> None:
            for chunk in part.chunks:
                (path / chunk.key).touch()  # which says: check it again
            _take(feed, batches)

        vectors = batches * batch
        target = np.empty_like(bits)
        work = {
            MEMCPY: Work(lambda: np.copyto(target, bits), len(bits)),
            BARE: Work(_bare(part, batch), vectors),
            "cpsae, first epoch": Work(first_epoch, vectors),
            "cpsae, later epochs": Work(lambda: _take(feed, batches), vectors),
            **{name: Work(read, len(bits)) for name, read in _whole_chunks(path).items()},
        }
        title = f"feed, d = {d}"
        seconds = measure(work, rounds, process_time, title, on_event)
    setting = {"d": d, "batch": batch, "window_chunks": window, "rounds": rounds}
    return Table(title, MEMCPY, setting, lines(work, seconds, MEMCPY))


def _whole_chunks(path: Path) -> dict[str, Callable[[], object]]:
    """All chunks in the order of the store, each checked: mapped, and by other readers."""
    chunks = open_store(path).training.chunks
    spans = [slice(chunk.first_row, chunk.first_row + chunk.n_rows) for chunk in chunks]

    def mapped() -> None:
        part = open_store(path).training  # one that has checked none yet
        for chunk in chunks:
            part.rows(chunk)

    array = cast("zarr.Array[Any]", zarr.open_group(path, mode="r")["activations"])
    readers: dict[str, Callable[[], object]] = {
        "cpsae, mapped and in order": mapped,
        "zarr-python, in order": lambda: [array[span] for span in spans],
    }
    if find_spec("tensorstore") is not None:
        import tensorstore

        place = {"driver": "file", "path": str(path / "activations")}
        opened = tensorstore.open({"driver": "zarr3", "kvstore": place}).result()
        readers["tensorstore, in order"] = lambda: [opened[s].read().result() for s in spans]
    return readers


def _bare(part: StorePart, batch: int) -> Callable[[], None]:
    """Each chunk's checksum once, and each batch's rows in random order with index_select."""
    rows = np.concatenate([part.rows(chunk) for chunk in part.chunks]).view(np.int16)
    pieces = [rows[first : first + CHUNK_ROWS] for first in range(0, len(rows), CHUNK_ROWS)]
    whole, target = torch.from_numpy(rows), torch.empty((batch, part.d), dtype=torch.int16)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))

    def call() -> None:
        for piece in pieces:
            google_crc32c.value(piece.view(np.uint8).reshape(-1))
        for first in range(0, len(rows) - batch + 1, batch):
            torch.index_select(whole, 0, order[first : first + batch], out=target)

    return call


def _take(batches: Iterator[torch.Tensor], count: int) -> None:
    for _ in range(count):
        next(batches)
