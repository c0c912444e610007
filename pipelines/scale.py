"""What a store of a billion vectors costs to open, list and begin with, without its terabytes.

    python pipelines/scale.py acts.zarr FOLDER [VECTORS]

Makes a store like acts.zarr, but of VECTORS (by default 10^9) of width 2,304, whose chunks are
sparse files of the right sizes: nothing in it can be read, all of it can be counted. Prints
seconds and the process's peak memory after each step.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from cpsae.store import Store, open_store
from cpsae.store.bucket import Folder
from cpsae.store.layout import Manifest
from cpsae.store.listing import Listing
from cpsae.store.metadata import read_manifest
from cpsae.store.writer import StoreWriter
from cpsae.training.feed import ActivationFeed, FeedPosition

D = 2304
R = TypeVar("R")


def make(like: Path, folder: Path, vectors: int) -> None:
    """The documents, and every object as a hole of its size."""
    manifest = read_manifest(Folder(like))
    contexts = manifest.contexts
    assert contexts is not None, "a store that was extracted"
    update = {"vectors": vectors, "d": D, "rows_per_chunk": 64 * contexts.rows, "complete": False}
    manifest = manifest.model_copy(update=update)
    StoreWriter.create(folder, manifest)
    for key, size in _objects(manifest):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            os.truncate(file.fileno(), size)
    writer = StoreWriter(Folder(folder), manifest)
    writer._mark(tokens_complete=True, complete=True)


def _objects(manifest: Manifest) -> list[tuple[str, int]]:
    chunks = [item for chunk in manifest.chunks() for item in chunk.objects().items()]
    return [*chunks, *((key, 1) for part in manifest.parts() for key in part.token_keys())]


def timed(name: str, work: Callable[[], R]) -> R:
    """Do it, and say what it took."""
    began = time.monotonic()
    result = work()
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"| {name} | {seconds:.1f} s | {peak:.2f} GB |", flush=True)
    return result


def _begin(store: Store) -> None:
    """The plan of a feed, and of one that goes on in the middle of its fourth epoch."""
    feed = ActivationFeed(store.training, norm_bound=1.0, position=FeedPosition(3, 100, 0))
    feed.chunk_order(3)
    np.random.default_rng([0, 3, 100, 1]).permutation(8 * store.manifest.rows_per_chunk)


def main() -> None:
    """Make it where it is not yet, and measure."""
    like, folder = Path(sys.argv[1]), Path(sys.argv[2])
    vectors = int(float(sys.argv[3])) if len(sys.argv) > 3 else 10**9
    if not folder.exists():
        make(like, folder, vectors)
    store = timed("`open_store`", lambda: open_store(folder))
    print(f"| ({len(store.chunks):,} chunks, {store.training.vectors:,} vectors) | | |")
    timed(
        "listing, as verify and extract do", lambda: Listing(store.bucket, store.chunks).missing()
    )
    timed("planning the feed", lambda: _begin(store))


if __name__ == "__main__":
    main()
