"""The JSON documents of a store, and the encoding of its small chunks, as zarr-python makes them.

zarr writes into memory and cpsae commits the bytes: zarr's own local store does not fsync.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

import cpsae.store.bfloat16  # noqa: F401  zarr must know the type before it meets it
from cpsae.errors import StoreError
from cpsae.store.commit import write_atomic
from cpsae.store.layout import FORMAT_VERSION, ArraySpec, Manifest

ROOT = "zarr.json"


def write_skeleton(path: Path, manifest: Manifest) -> None:
    """Write the document of every array and group, the root's first: from then on the folder is
    a store, though an empty one, and writing all of it again completes a killed attempt."""
    write_manifest(path, manifest)
    folders: set[str] = set()
    for part in manifest.parts():
        for spec in part.arrays():
            document = _memory_array(spec)["zarr.json"]
            write_atomic(path / spec.name / "zarr.json", document)
            pieces = spec.name.split("/")[:-1]
            folders.update("/".join(pieces[: i + 1]) for i in range(len(pieces)))
    for folder in sorted(folders):
        write_atomic(path / folder / "zarr.json", _group_document({}))


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
    attributes = content.get("attributes", {}) if isinstance(content, dict) else {}
    if "cpsae" not in attributes:
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
