"""How fast rows reach a training loop, side by side in one run: docs/performance.md.

    python pipelines/feed_speed.py /tmp/feed_speed.zarr

Makes a store of 6 chunks of 64 x 127 rows, d = 2304, bfloat16 (225 MB; kept for the next call) and
reads it with warm caches: mapped as `StorePart.rows` gives it, through a running ActivationFeed,
and with zarr-python and tensorstore chunk by chunk.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import tensorstore
import torch
import zarr

from cpsae import ActivationFeed, open_store, write_store

D, CHUNK_ROWS, CHUNKS, BATCH = 2304, 64 * 127, 6, 2048
RUNS = 5


def main(path: Path) -> None:
    """Print a Markdown table of gigabytes a second, the best of five passes."""
    torch.set_num_threads(1)
    if not path.exists():
        bits = np.random.default_rng(0).integers(0, 1 << 14, (CHUNK_ROWS * CHUNKS, D), np.uint16)
        write_store(path, bits.view(ml_dtypes.bfloat16), bits[:64].view(ml_dtypes.bfloat16))
    part = open_store(path).training
    array = cast("zarr.Array[Any]", zarr.open_group(path, mode="r")["activations"])
    tensor = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "activations")}}
    ).result()
    spans = [slice(chunk.first_row, chunk.first_row + chunk.n_rows) for chunk in part.chunks]

    n_batches = part.vectors // BATCH
    recycled = ActivationFeed(part, BATCH, max_norm=0).stream(recycle=True)
    kept = ActivationFeed(part, BATCH, max_norm=0).stream()
    for batches in (recycled, kept):  # the first epoch, with its checksums, and buffers
        _take(batches, n_batches)

    def first_epoch() -> None:
        fresh = ActivationFeed(open_store(path).training, BATCH, max_norm=0)
        batches = fresh.stream(recycle=True)
        _take(batches, n_batches)
        batches.close()

    ways: dict[str, Callable[[], object]] = {
        "mapped, checksum checked (`StorePart.rows`)": lambda: [
            checked.rows(chunk)
            for checked in [open_store(path).training]
            for chunk in checked.chunks
        ],
        "shuffled batches, first epoch (checksums checked)": first_epoch,
        "shuffled batches, later epochs, memory recycled": lambda: _take(recycled, n_batches),
        "shuffled batches, later epochs, each its own memory": lambda: _take(kept, n_batches),
        "zarr-python": lambda: [array[span] for span in spans],
        "tensorstore": lambda: [tensor[span].read().result() for span in spans],
    }
    print("| way | GB/s |\n|---|---|")
    for name, way in ways.items():
        seconds = min(_seconds(way) for _ in range(RUNS))
        print(f"| {name} | {part.vectors * D * 2 / seconds / 1e9:.2f} |")
    recycled.close()
    kept.close()


def _take(batches: Iterator[torch.Tensor], count: int) -> None:
    for _ in range(count):
        next(batches)


def _seconds(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
