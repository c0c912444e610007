"""Rows that come block by block, kept on the disk until all are there: only then can they be
shuffled and divided."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from cpsae.durable import disk_errors, make_folders
from cpsae.errors import StoreError
from cpsae.store.remote.settings import cache_folder
from cpsae.urls import Place

AsArray = Callable[[str, Any], npt.NDArray[Any]]


@contextmanager
def spooled(
    name: str, blocks: Iterator[Any], beside: Place, as_array: AsArray
) -> Iterator[npt.NDArray[Any]]:
    """The rows of all blocks, (vectors, d), mapped from a nameless file in the folder of `beside`
    (of a URL: in the folder of copies) that is gone afterwards, or when the process is. as_array:
    what makes an array of a block.

    Raises StoreError where a block does not go with the first one; DiskError.
    """
    folder = beside.parent if isinstance(beside, Path) else cache_folder()
    with disk_errors(folder):
        make_folders(folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        count, row = 0, np.empty(0)
        for number, block in enumerate(blocks):
            rows = np.ascontiguousarray(as_array(f"{name}: block {number}", block))
            row = row if number else np.empty(rows.shape[1:], rows.dtype)
            _write(file, f"{name}: block {number}", rows, row, folder)
            count += len(rows)
        if not count or not row.size:
            raise StoreError(f"{name}: the blocks hold no rows; was the iterator used before?")
        yield np.memmap(file, row.dtype, "r", shape=(count, row.size))


def _write(
    file: IO[bytes], name: str, rows: npt.NDArray[Any], row: npt.NDArray[Any], folder: Path
) -> None:
    if rows.ndim != 2 or rows.shape[1:] != row.shape or rows.dtype != row.dtype:
        d = row.size if row.ndim == 1 else "d"
        raise StoreError(
            f"{name}: is {rows.dtype} {rows.shape}, expected rows {row.dtype} (vectors, {d})"
        )
    with disk_errors(folder):
        file.write(rows.reshape(-1).view(np.uint8).data)
        file.flush()
