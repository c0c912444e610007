"""Checking every object of a store: presence, size, checksum, finiteness, and what they say."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpsae.errors import DamagedStoreError
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.store.bucket import Bucket
from cpsae.store.folders import find_bucket
from cpsae.store.integrity import checked_bytes, checked_tokens, map_rows
from cpsae.store.layout import CRC_BYTES, ArraySpec, Chunk, Manifest
from cpsae.store.listing import Listing
from cpsae.store.metadata import (
    document_keys,
    document_problems,
    read_manifest,
    rows_are_contradicted,
)
from cpsae.store.statistics import ChunkStatistics


class Problem(NamedTuple):
    """An object of the store, by its key, and what is wrong with it."""

    key: str
    what: str


class Verification(NamedTuple):
    """What `verify_store` found. What an unfinished store does not have yet is `absent`."""

    complete: bool
    files: int
    problems: list[Problem]
    absent: list[str]


def verify_store(path: str | os.PathLike[str], on_event: OnEvent = ignore) -> Verification:
    """Read every object of a store, at a URL each from the server.

    Raises StoreError where the folder is no store or its metadata cannot be read.
    """
    return verify_bucket(find_bucket(path, cached=False), on_event)


def verify_bucket(bucket: Bucket, on_event: OnEvent = ignore) -> Verification:
    """`verify_store` of a store in any bucket."""
    manifest = read_manifest(bucket)
    problems = [Problem(*found) for found in document_problems(bucket, manifest)]
    absent: list[str] = []
    if rows_are_contradicted(problems):
        return Verification(manifest.complete, 1 + len(document_keys(manifest)), problems, absent)
    if not manifest.tokens_complete:  # all documents come before them: some are being written
        absent = [key for key, what in problems if what == "missing"]
        problems = [problem for problem in problems if problem.key not in absent]
    problems += _token_problems(bucket, manifest)
    listing = Listing(bucket, manifest.chunks())
    files = 1 + len(document_keys(manifest)) - len(absent)
    if manifest.tokens_complete:
        files += sum(len(part.token_keys()) for part in manifest.parts())
    on_event(Started("verify", len(listing.chunks), "chunk", kept=False))
    for number, chunk in enumerate(listing.chunks, start=1):
        if not manifest.complete and not listing.has_rows(chunk):
            absent.append(chunk.key)
        else:
            files += len(chunk.objects())
            problems += _chunk_problems(bucket, listing, chunk)
        on_event(Advanced(number))
    on_event(Finished())
    return Verification(manifest.complete, files, problems, absent)


def _token_problems(bucket: Bucket, manifest: Manifest) -> Iterator[Problem]:
    for part in manifest.parts():
        for key in part.token_keys() if manifest.tokens_complete else ():
            found = list(_content_problem(bucket, key))
            yield from found
            if not found and not _holds_tokens(bucket, key, part.tokens_array()):
                yield Problem(key, "corrupt: it holds no tokens")


def _holds_tokens(bucket: Bucket, key: str, spec: ArraySpec) -> bool:
    try:
        checked_tokens(bucket, key, spec)
    except DamagedStoreError:
        return False
    return True


def _chunk_problems(bucket: Bucket, listing: Listing, chunk: Chunk) -> Iterator[Problem]:
    missing, wrong = listing.missing_keys(chunk), listing.wrong_sizes(chunk)
    bad = set()
    for key in chunk.objects():
        found = list(_object_problem(bucket, key, missing, wrong))
        bad |= {key} if found else set()
        yield from found
    if chunk.key in bad:
        return
    statistics = ChunkStatistics.of(map_rows(bucket, chunk))
    not_finite = int((~np.isfinite(statistics.norms)).sum())
    if not_finite:
        yield Problem(chunk.key, f"{not_finite} rows hold NaN or Inf")
        return
    d = chunk.part.manifest.d
    summary = statistics.summary.as_row()
    expected: dict[str, list[npt.NDArray[Any]]] = {
        chunk.norms_key: [statistics.norms],
        chunk.summary_key: [summary[:d], summary[d : d + 1], summary[d + 1 :]],
    }
    for key, pieces in expected.items():
        if key not in bad and not _agrees(bucket, key, pieces):
            yield Problem(key, "not what the rows of its chunk give")


def _object_problem(
    bucket: Bucket, key: str, missing: list[str], wrong: dict[str, tuple[int, int]]
) -> Iterator[Problem]:
    if key in missing:
        yield Problem(key, "missing")
    elif key in wrong:
        size, right = wrong[key]
        yield Problem(key, f"{size} bytes long, expected {right}: cut short or foreign")
    else:
        yield from _content_problem(bucket, key)


def _content_problem(bucket: Bucket, key: str) -> Iterator[Problem]:
    if key not in bucket.sizes([key]):
        yield Problem(key, "missing")
        return
    try:
        checked_bytes(bucket, key)
    except DamagedStoreError:
        yield Problem(key, "corrupt: its checksum does not match its content")


def _agrees(bucket: Bucket, key: str, pieces: list[npt.NDArray[Any]]) -> bool:
    """Whether statistics are what their rows give, but for the order of summation."""
    stored = checked_bytes(bucket, key)[:-CRC_BYTES].view(pieces[0].dtype)
    first = 0
    for right in pieces:
        found = stored[first : first + len(right)]
        first += len(right)
        # A mean may cancel to nearly nothing, so it is compared on the scale of its largest value.
        scale = float(np.abs(right).max())
        if not np.allclose(found, right, rtol=1e-6, atol=1e-6 * scale):
            return False
    return True
