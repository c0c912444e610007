"""Bytes that are what was written: nothing is handed on whose checksum does not match."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cpsae.errors import DamagedStoreError, StoreError
from cpsae.store.bucket import Bucket
from cpsae.store.layout import CRC_BYTES, NUMPY_DTYPES, ArraySpec, Chunk, Manifest
from cpsae.store.metadata import decode_tokens, read_manifest

_SHOWN = 5


def map_rows(bucket: Bucket, chunk: Chunk) -> npt.NDArray[Any]:
    """Rows (n_rows, d) of a chunk, mapped and read-only, their checksum checked."""
    manifest = chunk.part.manifest
    values = checked_bytes(bucket, chunk.key)[:-CRC_BYTES].view(NUMPY_DTYPES[manifest.store_dtype])
    return values.reshape(manifest.rows_per_chunk, manifest.d)[: chunk.n_rows]


def checked_bytes(bucket: Bucket, key: str) -> npt.NDArray[np.uint8]:
    """The bytes of an object, the last four being the right checksum of the others.

    Raises DamagedStoreError, naming the object by its key, where it is not so.
    """
    raw = whole_bytes(bucket, key)
    if not len(raw):
        raise damaged(bucket, {"empty": [key]})
    if not is_right(raw):
        raise damaged(bucket, {"corrupt (its checksum does not match its content)": [key]})
    return raw


def whole_bytes(bucket: Bucket, key: str) -> npt.NDArray[np.uint8]:
    """The bytes of an object, as they are. Raises DamagedStoreError where there are none."""
    try:
        return bucket.read(key)
    except FileNotFoundError:
        raise damaged(bucket, {"missing": [key]}) from None
    except OSError as error:
        raise damaged(bucket, {f"unreadable ({error.strerror})": [key]}) from None


def is_right(raw: npt.NDArray[np.uint8]) -> bool:
    """Whether the last four bytes are the checksum of the others, of which there are some."""
    if len(raw) <= CRC_BYTES:
        return False
    checksum = int.from_bytes(raw[-CRC_BYTES:].tobytes(), "little")
    return bool(google_crc32c.value(raw[:-CRC_BYTES]) == checksum)


def checked_tokens(bucket: Bucket, key: str, spec: ArraySpec) -> npt.NDArray[np.int32]:
    """A chunk of tokens, padding included. Raises DamagedStoreError where it is none."""
    try:
        return decode_tokens(checked_bytes(bucket, key), spec)
    except (RuntimeError, ValueError):  # other bytes, and a checksum of them
        raise damaged(bucket, {"corrupt (it holds no tokens)": [key]}) from None


def damaged(
    bucket: Bucket, problems: Mapping[str, Sequence[str]], manifest: Manifest | None = None
) -> DamagedStoreError:
    """The error for a store's objects: what is wrong, with which (the first few named), and what
    its owner can do."""
    texts = []
    for what, keys in problems.items():
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        texts.append(f"{', '.join(keys[:_SHOWN])}{more}: {what}")
    return DamagedStoreError(
        f"{bucket.name}: {'; '.join(texts)}; {_remedy(bucket, manifest)}",
        [key for keys in problems.values() for key in keys],
    )


def _remedy(bucket: Bucket, manifest: Manifest | None) -> str:
    name = shlex.quote(bucket.name)
    try:
        manifest = manifest or read_manifest(bucket)
    except StoreError:
        return f"run `cpsae verify {name}`"
    if manifest.origin == "arrays":
        return (
            f"`cpsae verify {name} --repair` makes statistics and documents again; rows "
            "that are gone nothing can compute: restore them from a copy, or write the store again"
        )
    return (
        f"run `cpsae verify {name} --repair`, then the same `cpsae extract` command again "
        "computes what is gone"
    )
