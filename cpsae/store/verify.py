"""Checking every file of a store: presence, size, checksum, finiteness, and what they say."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpsae.errors import DamagedStoreError
from cpsae.store.documents import read_manifest
from cpsae.store.layout import Chunk, Manifest
from cpsae.store.reader import checked_bytes, map_checked, map_rows
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
    problems = list(_token_problems(path, manifest))
    absent: list[str] = []
    chunks = [chunk for part in manifest.parts() for chunk in part.chunks()]
    files = sum(len(part.token_keys()) for part in manifest.parts())
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
    broken = list(_file_problem(path, chunk.key, chunk.file_bytes))
    for key in chunk.statistics_keys().values():
        broken += _file_problem(path, key)
    yield from broken
    if broken:
        return
    statistics = ChunkStatistics.of(map_rows(path, chunk))
    not_finite = int((~np.isfinite(statistics.norms)).sum())
    if not_finite:
        yield Problem(chunk.key, f"{not_finite} rows hold NaN or Inf")
        return
    key = chunk.statistics_keys()["norms"]
    stored = map_checked(path, key, np.dtype("<f4"))[: chunk.n_rows]
    if not np.allclose(stored, statistics.norms, rtol=1e-6):
        yield Problem(key, "the norms are not those of the rows")


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
