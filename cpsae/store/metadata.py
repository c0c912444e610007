"""The JSON documents of a store, as Zarr v3 has them, and the encoding of its tokens."""

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import Zstd
from pydantic import ValidationError

from cpsae.errors import StoreError
from cpsae.json_files import parse_object
from cpsae.store.bucket import Bucket
from cpsae.store.layout import CRC_BYTES, FORMAT_VERSION, MOST_CHUNKS, ArraySpec, Manifest

ROOT = "zarr.json"
CONTRADICTION = "does not describe what the manifest says"

_ADVICE = "give the folder that `cpsae extract` wrote"
_NO_TOKEN = -1
_ZSTD_LEVEL = 3


def write_skeleton(bucket: Bucket, manifest: Manifest) -> None:
    """Write the document of every array and group, the root's first: from then on this is a store,
    though an empty one, and writing all of it again completes a killed attempt."""
    write_manifest(bucket, manifest)
    for key in document_keys(manifest):
        write_document(bucket, manifest, key)


def write_manifest(bucket: Bucket, manifest: Manifest) -> None:
    """Replace the root document, which carries the manifest."""
    bucket.write(ROOT, _as_json(_group({"cpsae": manifest.model_dump(mode="json")})) + b"\n")


def read_manifest(bucket: Bucket) -> Manifest:
    """Raises StoreError where this is no store, its JSON is broken, or its format is unknown."""
    document = f"{bucket.name}/{ROOT}"
    try:
        content = parse_object(bucket.read(ROOT).tobytes())
    except FileNotFoundError:
        raise StoreError(f"{bucket.name}: is no store (it has no {ROOT}); {_ADVICE}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{document}: {error}; restore this file from a copy") from None
    attributes = content.get("attributes")
    if not isinstance(attributes, dict) or "cpsae" not in attributes:
        raise StoreError(f"{bucket.name}: is a Zarr group but no cpsae store; {_ADVICE}")
    manifest = _validated(document, attributes["cpsae"])
    refuse_too_many(document, manifest)
    return manifest


def refuse_too_many(name: str, manifest: Manifest) -> None:
    """Raises StoreError where a store has more chunks than any may have."""
    count = manifest.n_chunks()
    if count > MOST_CHUNKS:
        raise StoreError(
            f"{name}: says that it has {count:,} chunks, {manifest.vectors:,} vectors and "
            f"{manifest.evaluation_vectors:,} held out; a store has at most {MOST_CHUNKS:,} chunks"
        )


def _validated(document: str, content: Any) -> Manifest:
    version = content.get("format_version") if isinstance(content, dict) else None
    if version == 1:
        raise StoreError(
            f"{document}: has format version 1, which cpsae 0.1 wrote; use cpsae 0.1 for it, or "
            "make the store again with the same command (its activations come out the same)"
        )
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{document}: has format version {version!r}, this cpsae reads {FORMAT_VERSION}; "
            "use a cpsae of the release that wrote it"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise StoreError(
            f"{document}: attributes.cpsae.{where} is wrong ({problem['msg']}); "
            "restore this file from a copy"
        ) from None


def document_keys(manifest: Manifest) -> list[str]:
    """The keys of the documents of all arrays and of the groups that hold them, but the root's."""
    names = {spec.name for part in manifest.parts() for spec in part.arrays()}
    groups = {str(folder) for name in names for folder in PurePosixPath(name).parents} - {"."}
    return [f"{name}/{ROOT}" for name in sorted(names | groups)]


def write_document(bucket: Bucket, manifest: Manifest, key: str) -> None:
    """Write one of `document_keys`: all of it follows from the manifest."""
    spec = _specs(manifest).get(key)
    bucket.write(key, _as_json(_group({})) + b"\n" if spec is None else _as_json(_array(spec)))


def document_problems(bucket: Bucket, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Key and fault of each document that is absent, unreadable, or not as the manifest says.

    Other writers may word a document otherwise, so only what says how to read the bytes counts.
    """
    specs = _specs(manifest)
    for key in document_keys(manifest):
        try:
            document = parse_object(bucket.read(key).tobytes())
        except FileNotFoundError:
            yield key, "missing"
            continue
        except (OSError, ValueError) as error:
            yield key, str(error)
            continue
        spec = specs.get(key)
        expected = _described(_group({}) if spec is None else _array(spec))
        if _described(document) != expected and not _is_right_again(bucket, key, expected):
            yield key, CONTRADICTION


def _is_right_again(bucket: Bucket, key: str, expected: tuple[Any, ...] | None) -> bool:
    """Whether a document that came over a network is as expected where it comes again: it has no
    checksum of its own."""
    if not bucket.forget(key):
        return False
    try:
        return _described(parse_object(bucket.read(key).tobytes())) == expected
    except (OSError, ValueError):
        return False


def rows_are_contradicted(problems: Iterable[tuple[str, str]]) -> bool:
    """Whether manifest and arrays differ in how many rows there are, or in how they are kept: then
    nobody knows which chunks there should be."""
    arrays = {f"{part}activations/{ROOT}" for part in ("", "evaluation/")}
    return any(key in arrays and what == CONTRADICTION for key, what in problems)


def _specs(manifest: Manifest) -> dict[str, ArraySpec]:
    return {f"{spec.name}/{ROOT}": spec for part in manifest.parts() for spec in part.arrays()}


def _described(document: dict[str, Any]) -> tuple[Any, ...] | None:
    """What of a document says how to read the bytes; None where it does not."""
    try:
        node = (document["zarr_format"], document["node_type"])
        if node[1] != "array":
            return node
        chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = [codec["name"] for codec in document["codecs"]]
        return (*node, document["shape"], chunks, document["data_type"], codecs)
    except (KeyError, TypeError):
        return None


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _array(spec: ArraySpec) -> dict[str, Any]:
    zstd = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}
    return {
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(spec.chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        # A chunk nobody wrote reads as NaN, not as plausible zeros, where the type has a NaN.
        "fill_value": 0 if spec.dtype.startswith("int") else "NaN",
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            *([zstd] if spec.compressed else []),
            {"name": "crc32c"},
        ],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _as_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()


def encode_tokens(tokens: npt.NDArray[np.int32], spec: ArraySpec) -> bytes:
    """The bytes of one chunk of tokens that begins with `tokens` (contexts, T) and is padded with
    zeros: little-endian, zstd, CRC-32C."""
    padded = np.zeros(spec.chunks, dtype="<i4")
    padded[: len(tokens)] = tokens
    packed = bytes(Zstd(level=_ZSTD_LEVEL).encode(padded.reshape(-1)))
    checksum: int = google_crc32c.value(packed)
    return packed + checksum.to_bytes(CRC_BYTES, "little")


def decode_tokens(content: npt.NDArray[np.uint8], spec: ArraySpec) -> npt.NDArray[np.int32]:
    """The inverse, of bytes whose checksum is right: the whole chunk, padding included, and no more
    memory than that, whatever they say. Raises ValueError or RuntimeError where they are no such
    chunk."""
    whole = np.full(spec.chunks, _NO_TOKEN, dtype="<i4")
    Zstd().decode(content[:-CRC_BYTES].tobytes(), out=whole)
    if (whole == _NO_TOKEN).any():  # fewer, and the library leaves the rest of `out` alone
        raise ValueError("is no chunk of so many contexts")
    return whole
