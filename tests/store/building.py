"""Small stores with tokens, made without a model, and what is true of them by construction."""

import shutil
from pathlib import Path

import google_crc32c
import numpy as np

from cpsae.store import Chunk, Manifest, StoreWriter
from cpsae.store.layout import NUMPY_DTYPES, ContextRecord, HookRecord

D, ROWS_A_CHUNK, TOKENS, ROWS_A_CONTEXT = 8, 16, 5, 4
VECTORS, EVALUATION_VECTORS = 70, 20


def manifest(store_dtype: str = "float32", **changes) -> Manifest:
    """70 training rows in 5 chunks (the last one of 6 rows), 20 held-out rows in 2."""
    values = {
        "origin": "extract",
        "identity": {"layer": 19, "seed": 0},
        "vectors": VECTORS,
        "evaluation_vectors": EVALUATION_VECTORS,
        "d": D,
        "rows_per_chunk": ROWS_A_CHUNK,
        "store_dtype": store_dtype,
        "seed": 0,
        "contexts": ContextRecord(
            tokens=TOKENS, rows=ROWS_A_CONTEXT, first_position=1, batch_contexts=2
        ),
        "hook": HookRecord(layer=19),
        "software": {},
    }
    return Manifest(**{**values, **changes})


def rows_of(chunk: Chunk) -> np.ndarray:
    """The rows of a chunk: a function of the chunk alone, as an extraction's are."""
    seed = [chunk.index, len(chunk.part.prefix)]
    rows = np.random.default_rng(seed).standard_normal((chunk.n_rows, chunk.part.manifest.d))
    return rows.astype(NUMPY_DTYPES[chunk.part.manifest.store_dtype])


def tokens_of(store_manifest: Manifest) -> dict[str, np.ndarray]:
    """Every context of both parts."""
    return {
        part.name: np.arange(part.n_contexts * TOKENS, dtype=np.int32).reshape(-1, TOKENS) + 7
        for part in store_manifest.parts()
    }


def begin(path: Path, store_manifest: Manifest) -> StoreWriter:
    """A store with its tokens and no chunk."""
    writer = StoreWriter.create(path, store_manifest)
    writer.write_tokens(tokens_of(store_manifest))
    return writer


def build(path: Path, store_dtype: str = "float32", **changes) -> Path:
    """A complete store."""
    writer = begin(path, manifest(store_dtype, **changes))
    for chunk in writer.chunks:
        writer.write(chunk, rows_of(chunk))
    writer.finish()
    return path


def files_of(path: Path) -> dict[str, bytes]:
    """Every file under `path`, by its path in the store."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def flip_bit(file: Path, offset: int = 5) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


def foreign(file: Path, values: np.ndarray) -> None:
    """Replace a file with other values and their own right checksum."""
    raw = values.tobytes()
    file.write_bytes(raw + google_crc32c.value(raw).to_bytes(4, "little"))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def remove(file: Path) -> None:
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink()
