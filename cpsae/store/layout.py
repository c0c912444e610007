"""The layout of a store: its manifest, its arrays, and the path of everything in it.

docs/store-format.md is the normative description; a change here is a change there, and a new
`FORMAT_VERSION`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from pydantic import Field

from cpsae.config.base import Record
from cpsae.config.extraction import Point, StoreDtype

FORMAT_VERSION = 2
CRC_BYTES = 4
LARGEST_CHUNK_BYTES = 64 * 2**20
MOST_CONTEXTS_A_CHUNK = 64
_WITH_CHUNKS = {"activations", "statistics/norms", "statistics/summary", "tokens"}
MOST_CHUNKS = 2**21
"""That a store may have, of activations and tokens together: readers list them all in memory."""
TOKEN_CONTEXTS_A_CHUNK = 4096

NUMPY_DTYPES: dict[StoreDtype, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}


class ContextRecord(Record):
    """How rows belong to contexts: row r is context r // rows, position r % rows + first."""

    tokens: int
    rows: int
    first_position: Literal[0, 1]
    batch_contexts: int


class HookRecord(Record):
    """Where in the model the rows were taken: a place in block `layer`, counted from 0."""

    layer: int
    name: Point = "resid_post"


class ModelRecord(Record):
    """The language model. `fingerprint` is the SHA-256 of the weights that were used."""

    id: str
    revision: str | None
    architecture: str
    n_layers: int
    fingerprint: str
    dtype: str
    attention: str


class TokenizerRecord(Record):
    """The tokenizer. `bos` and `separator` are the token ids used in packing, if any."""

    fingerprint: str
    vocabulary: int
    bos: int | None
    separator: int | None


class DatasetRecord(Record):
    """The text. `held_out` says what evaluation was cut by: documents, or position in the one."""

    id: str
    revision: str | None
    split: str
    text_field: str
    documents: int
    held_out: Literal["documents", "position"]


class DeviceRecord(Record):
    """What computed the rows. Another `kind` gives other bytes, another `name` may."""

    kind: str
    name: str
    threads: int | None
    """torch's threads on a CPU: their number changes the last bits of a matrix product."""


class Manifest(Record):
    """`attributes.cpsae` of the root group: everything about a store but its rows."""

    format_version: int = FORMAT_VERSION
    origin: Literal["extract", "arrays"]
    identity: dict[str, Any]
    """Dotted keys; an extraction continues only where all of them agree."""
    vectors: int = Field(ge=1)
    evaluation_vectors: int = Field(ge=0)
    d: int = Field(ge=1)
    rows_per_chunk: int = Field(ge=1)
    store_dtype: StoreDtype
    seed: int
    contexts: ContextRecord | None = None
    hook: HookRecord | None = None
    model: ModelRecord | None = None
    tokenizer: TokenizerRecord | None = None
    dataset: DatasetRecord | None = None
    device: DeviceRecord | None = None
    description: str = ""
    software: dict[str, str]
    tokens_complete: bool = False
    complete: bool = False

    def parts(self) -> list["Part"]:
        """The held-out part (if any), then the training part: the order of extraction."""
        training = Part("", self.vectors, self)
        if not self.evaluation_vectors:
            return [training]
        return [Part("evaluation/", self.evaluation_vectors, self), training]

    def chunks(self) -> list["Chunk"]:
        """Every chunk of activations of both parts, in the order of extraction."""
        return [chunk for part in self.parts() for chunk in part.chunks()]

    def n_chunks(self) -> int:
        """Chunks of activations and of tokens, counted without a list of them."""
        return sum(part.n_chunks + part.n_token_chunks for part in self.parts())


def has_checksum(key: str) -> bool:
    """Whether the object of this key ends with the CRC-32C of what is before it: chunks do."""
    return key.removeprefix("evaluation/").partition("/c/")[0] in _WITH_CHUNKS


@dataclass(frozen=True)
class Part:
    """One of the two equally built parts of a store; `prefix` is "" or "evaluation/"."""

    prefix: str
    vectors: int
    manifest: Manifest = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """`training` or `evaluation`."""
        return self.prefix.removesuffix("/") or "training"

    @property
    def n_chunks(self) -> int:
        """Chunks of activations, the last one perhaps padded with zeros."""
        return -(-self.vectors // self.manifest.rows_per_chunk)

    @property
    def n_contexts(self) -> int:
        """Contexts, the last one perhaps stored in part; 0 in a store made from arrays."""
        contexts = self.manifest.contexts
        return -(-self.vectors // contexts.rows) if contexts else 0

    def chunks(self) -> Iterator["Chunk"]:
        """Every chunk of activations, in order."""
        return (Chunk(self, index) for index in range(self.n_chunks))

    @property
    def n_token_chunks(self) -> int:
        """The last one may be padded."""
        return -(-self.n_contexts // TOKEN_CONTEXTS_A_CHUNK)

    def token_keys(self) -> list[str]:
        """The paths of all chunks of tokens."""
        return [f"{self.prefix}tokens/c/{index}/0" for index in range(self.n_token_chunks)]

    def arrays(self) -> list["ArraySpec"]:
        """The arrays of this part, as zarr is to describe them."""
        rows, d, manifest = self.vectors, self.manifest.d, self.manifest
        per_chunk = manifest.rows_per_chunk
        activations = ArraySpec("activations", (rows, d), (per_chunk, d), manifest.store_dtype)
        specs = [
            activations,
            ArraySpec("statistics/norms", (rows,), (per_chunk,), "float32"),
            ArraySpec("statistics/summary", (self.n_chunks, d + 2), (1, d + 2), "float64"),
        ]
        named = [spec._replace(name=self.prefix + spec.name) for spec in specs]
        return [*named, self.tokens_array()] if manifest.contexts else named

    def tokens_array(self) -> "ArraySpec":
        """The array of tokens of a store that has them."""
        contexts = self.manifest.contexts
        assert contexts is not None, "a store made from arrays holds no tokens"
        shape, chunk = (self.n_contexts, contexts.tokens), (TOKEN_CONTEXTS_A_CHUNK, contexts.tokens)
        return ArraySpec(f"{self.prefix}tokens", shape, chunk, "int32", compressed=True)


@dataclass(frozen=True)
class Chunk:
    """A chunk of activations and what goes with it."""

    part: Part
    index: int

    @property
    def key(self) -> str:
        """The file's path in the store, such as `activations/c/1/0`."""
        return f"{self.part.prefix}activations/c/{self.index}/0"

    @property
    def first_row(self) -> int:
        """The part's row that is this chunk's row 0."""
        return self.index * self.part.manifest.rows_per_chunk

    @property
    def n_rows(self) -> int:
        """Rows that count; the file is padded to `rows_per_chunk`."""
        return min(self.part.manifest.rows_per_chunk, self.part.vectors - self.first_row)

    @property
    def contexts(self) -> range:
        """The part's contexts whose rows these are."""
        contexts = self.part.manifest.contexts
        if contexts is None:
            return range(0)
        first = self.first_row // contexts.rows
        return range(first, first - (-self.n_rows // contexts.rows))

    @property
    def file_bytes(self) -> int:
        """Size of the file: full chunk and checksum."""
        manifest = self.part.manifest
        row_bytes = manifest.d * NUMPY_DTYPES[manifest.store_dtype].itemsize
        return manifest.rows_per_chunk * row_bytes + CRC_BYTES

    @property
    def norms_key(self) -> str:
        """Where the norms of its rows are."""
        return f"{self.part.prefix}statistics/norms/c/{self.index}"

    @property
    def summary_key(self) -> str:
        """Where its row of `statistics/summary` is."""
        return f"{self.part.prefix}statistics/summary/c/{self.index}/0"

    def objects(self) -> dict[str, int]:
        """The keys of all that belongs to it, the rows first, with their sizes in bytes."""
        manifest = self.part.manifest
        return {
            self.key: self.file_bytes,
            self.norms_key: 4 * manifest.rows_per_chunk + CRC_BYTES,
            self.summary_key: 8 * (manifest.d + 2) + CRC_BYTES,
        }


class ArraySpec(NamedTuple):
    """Shape, chunk shape and data type of one array; `compressed` adds zstd before the CRC."""

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    compressed: bool = False


def contexts_per_chunk(rows_per_context: int, d: int, store_dtype: StoreDtype) -> int:
    """The largest power of two up to 64 whose chunk is at most 64 MiB, at least 1."""
    context_bytes = rows_per_context * d * NUMPY_DTYPES[store_dtype].itemsize
    fitting = LARGEST_CHUNK_BYTES // context_bytes
    return min(MOST_CONTEXTS_A_CHUNK, _power_of_two_up_to(fitting))


def rows_per_chunk_of_arrays(d: int, store_dtype: StoreDtype) -> int:
    """For rows without contexts: the largest power of two up to 8192 within 64 MiB."""
    fitting = LARGEST_CHUNK_BYTES // (d * NUMPY_DTYPES[store_dtype].itemsize)
    return min(8192, _power_of_two_up_to(fitting))


def _power_of_two_up_to(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)
