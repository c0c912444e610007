"""Checking every file of a store: presence, size, checksum, finiteness, and what they say."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpsae.errors import DamagedStoreError
from cpsae.store.documents import document_keys, document_problems, read_manifest
from cpsae.store.layout import CRC_BYTES, Chunk, Manifest
from cpsae.store.reader import checked_bytes, map_rows
from cpsae.store.statistics import ChunkStatistics


class Problem(NamedTuple):
    """A file of the store, by its path in it, and what is wrong with it."""

    key: str
    what: str


class Verification(NamedTuple):
    """What `verify_store` found. An unfinished store's missing chunks are `absent`, no problem."""

    complete: bool
    files: int
    problems: list[Problem]
    absent: list[str]


def verify_store(
    path: str | Path, on_progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Read every file of a store. `on_progress(chunks done, chunks in all)` is called as it goes.

    Raises StoreError where the folder is no store or its metadata cannot be read.
    """
    path = Path(path)
    manifest = read_manifest(path)
    problems = [Problem(*found) for found in document_problems(path, manifest)]
    problems += _token_problems(path, manifest)
    absent: list[str] = []
    chunks = manifest.chunks()
    files = 1 + len(document_keys(manifest))
    if manifest.tokens_complete:
        files += sum(len(part.token_keys()) for part in manifest.parts())
    for number, chunk in enumerate(chunks, start=1):
        if not manifest.complete and not (path / chunk.key).exists():
            absent.append(chunk.key)
        else:
            files += 1 + len(chunk.statistics_keys())
            problems += _chunk_problems(path, chunk)
        if on_progress:
            on_progress(number, len(chunks))
    return Verification(manifest.complete, files, problems, absent)


def _token_problems(path: Path, manifest: Manifest) -> Iterator[Problem]:
    for part in manifest.parts():
        for key in part.token_keys() if manifest.tokens_complete else ():
            yield from _file_problem(path, key)


def _chunk_problems(path: Path, chunk: Chunk) -> Iterator[Problem]:
    keys = chunk.statistics_keys()
    broken = _file_problem(path, chunk.key, chunk.file_bytes)
    wrong = {n: _file_problem(path, keys[n], size) for n, size in chunk.statistics_bytes.items()}
    yield from (problem for found in (broken, *wrong.values()) for problem in found)
    if broken:
        return
    rows = map_rows(path, chunk)
    statistics = ChunkStatistics.of(rows)
    not_finite = int((~np.isfinite(statistics.norms)).sum())
    if not_finite:
        yield Problem(chunk.key, f"{not_finite} rows hold NaN or Inf")
        return
    for name, found in wrong.items():
        if not found and not _agrees(path, keys[name], getattr(statistics, name)):
            yield Problem(keys[name], "not what the rows of its chunk give")


def _agrees(path: Path, key: str, expected: npt.NDArray[Any] | float) -> bool:
    """Whether a statistic is what its rows give, but for the order of summation."""
    right = np.atleast_1d(np.asarray(expected))
    dtype = np.dtype(np.int64) if right.dtype.kind == "i" else right.dtype
    stored = checked_bytes(path, key)[:-CRC_BYTES].view(dtype)[: len(right)]
    # A mean may cancel to nearly nothing, so it is compared on the scale of its largest value.
    scale = float(np.abs(right).max())
    return bool(np.allclose(stored, right, rtol=1e-6, atol=1e-6 * scale))


def _file_problem(path: Path, key: str, expected_bytes: int | None = None) -> list[Problem]:
    file = path / key
    if not file.exists():
        return [Problem(key, "missing")]
    size = file.stat().st_size
    if expected_bytes is not None and size != expected_bytes:
        return [Problem(key, f"{size} bytes long, expected {expected_bytes}: cut short or foreign")]
    try:
        checked_bytes(path, key)
    except DamagedStoreError:
        return [Problem(key, "corrupt: its checksum does not match its content")]
    return []
