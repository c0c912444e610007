"""The JSON documents of a store, and the encoding of its small chunks, as zarr-python makes them.

zarr writes into memory and cpsae commits the bytes: zarr's own local store does not fsync.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

import cpsae.store.bfloat16  # noqa: F401  zarr must know the type before it meets it
from cpsae.durable import write_atomic
from cpsae.errors import StoreError
from cpsae.store.layout import FORMAT_VERSION, ArraySpec, Manifest

ROOT = "zarr.json"
CONTRADICTION = "does not describe what the manifest says"


def write_skeleton(path: Path, manifest: Manifest) -> None:
    """Write the document of every array and group, the root's first: from then on the folder is
    a store, though an empty one, and writing all of it again completes a killed attempt."""
    write_manifest(path, manifest)
    for key in document_keys(manifest):
        write_document(path, manifest, key)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the root document, which carries the manifest."""
    attributes = {"cpsae": manifest.model_dump(mode="json")}
    write_atomic(path / ROOT, _group_document(attributes))


def read_manifest(path: Path) -> Manifest:
    """Raises StoreError where `path` is no store, its JSON is broken, or its format is unknown."""
    document = path / ROOT
    advice = "give the folder that `cpsae extract` wrote"
    if not path.is_dir():
        raise StoreError(f"{path}: no such store; {advice}")
    try:
        content = json.loads(document.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path}: is no store (it has no zarr.json); {advice}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StoreError(
            f"{document}: is not readable JSON ({error}); restore this file from a copy"
        ) from None
    attributes = content.get("attributes") if isinstance(content, dict) else None
    if not isinstance(attributes, dict) or "cpsae" not in attributes:
        raise StoreError(f"{path}: is a Zarr group but no cpsae store; {advice}")
    return _validated(document, attributes["cpsae"])


def _validated(document: Path, content: Any) -> Manifest:
    version = content.get("format_version") if isinstance(content, dict) else None
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
    """The paths of the documents of all arrays and of the groups that hold them, but the root's."""
    names = {spec.name for part in manifest.parts() for spec in part.arrays()}
    groups = {str(folder) for name in names for folder in PurePosixPath(name).parents} - {"."}
    return [f"{name}/{ROOT}" for name in sorted(names | groups)]


def write_document(path: Path, manifest: Manifest, key: str) -> None:
    """Write one of `document_keys`: all of it follows from the manifest."""
    spec = _specs(manifest).get(key)
    content = _group_document({}) if spec is None else _memory_array(spec)[ROOT]
    write_atomic(path / key, content)


def document_problems(path: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Path and fault of each document that is absent, unreadable, or not as the manifest says.

    Other writers may word a document otherwise, so only what says how to read the bytes counts.
    """
    specs = _specs(manifest)
    for key in document_keys(manifest):
        try:
            document = json.loads((path / key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            yield key, "missing"
            continue
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            yield key, f"not readable JSON ({error})"
            continue
        if _described(document) != _expected(specs.get(key)):
            yield key, CONTRADICTION


def _specs(manifest: Manifest) -> dict[str, ArraySpec]:
    return {f"{spec.name}/{ROOT}": spec for part in manifest.parts() for spec in part.arrays()}


def _expected(spec: ArraySpec | None) -> tuple[Any, ...]:
    if spec is None:
        return (3, "group")
    codecs = ["bytes", "zstd", "crc32c"] if spec.compressed else ["bytes", "crc32c"]
    return (3, "array", list(spec.shape), list(spec.chunks), spec.dtype, codecs)


def _described(document: Any) -> tuple[Any, ...] | None:
    try:
        kind = (document["zarr_format"], document["node_type"])
        if kind[1] != "array":
            return kind
        chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = [codec["name"] for codec in document["codecs"]]
        return (*kind, document["shape"], chunks, document["data_type"], codecs)
    except (KeyError, TypeError):
        return None


def encode_chunk(values: np.ndarray[Any, Any], spec: ArraySpec) -> bytes:
    """The bytes of one chunk of `spec` that begins with `values` and is padded with zeros."""
    padded = np.zeros(spec.chunks, dtype=values.dtype)
    padded[tuple(slice(0, length) for length in values.shape)] = values
    single = spec._replace(shape=spec.chunks)
    return _memory_array(single, padded)["/".join(["c", *["0"] * len(spec.chunks)])]


def _memory_array(spec: ArraySpec, values: np.ndarray[Any, Any] | None = None) -> dict[str, bytes]:
    memory = MemoryStore()
    # A chunk nobody wrote reads as NaN, not as plausible zeros, where the type has a NaN.
    fill_value = 0 if spec.dtype.startswith("int") else "NaN"
    compression = [ZstdCodec(level=3)] if spec.compressed else []
    array = zarr.create_array(
        memory,
        shape=spec.shape,
        chunks=spec.chunks,
        dtype=spec.dtype,
        fill_value=fill_value,
        serializer=BytesCodec(endian="little"),
        compressors=[*compression, Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    if values is not None:
        array[...] = values
    return {key: _bytes_of(memory, key) for key in memory._store_dict}


def _bytes_of(memory: MemoryStore, key: str) -> bytes:
    buffer = sync(memory.get(key, default_buffer_prototype()))
    if buffer is None:
        raise KeyError(key)
    return buffer.to_bytes()


def _group_document(attributes: dict[str, Any]) -> bytes:
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return (json.dumps(document, indent=2) + "\n").encode()
