"""What a file is, by its name and its first bytes: one of the formats that are read, or why not."""

import json
import re
from pathlib import Path
from typing import Literal, NamedTuple

from cpsae.corpus.compressed import SUFFIXES as COMPRESSED
from cpsae.corpus.compressed import HashedFile, compression_of, decompressed
from cpsae.corpus.encodings import encoding_of, marked
from cpsae.corpus.tables import ARROW_FILE, PARQUET
from cpsae.errors import CorpusError

Format = Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "arrow"]

_RECORDS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_TEXT = """
    .txt .text .md .rst .tex .org .html .htm .xml .css .yaml .yml .toml .ini .cfg .ipynb .log
    .py .pyi .c .h .cc .cpp .hpp .cu .rs .go .java .kt .scala .cs .swift .js .ts .jsx .tsx .jl
    .rb .php .pl .lua .hs .ml .ex .erl .clj .lisp .el .sh .bash .ps1 .sql .proto .cmake
"""
_TEXT_SUFFIXES = tuple(_TEXT.split())
SUFFIXES = (
    *(f"{s}{c}" for s in (*_RECORDS, *_TEXT_SUFFIXES) for c in ("", *COMPRESSED)),
    *COMPRESSED,
)
"""A name that ends in one of these is meant as a path, whether it exists or not."""

_UNREAD = {".lz4": "lz4", ".br": "Brotli", ".lzo": "lzo", ".z": "compress", ".sz": "Snappy"}
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".zpaq")
_ARCHIVE = "an archive: unpack it"
_MAGIC = (
    (re.compile(rb"PK(\x03\x04|\x05\x06)|7z\xbc\xaf\x27\x1c|Rar!\x1a|.{257}ustar", re.S), _ARCHIVE),
    (
        re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*", re.S),
        "an image",
    ),
    (re.compile(rb"ID3|OggS|fLaC|RIFF....WAVE|....ftyp", re.S), "sound or film"),
    (re.compile(rb"%PDF-"), "a PDF file: take its text out"),
    (re.compile(rb"\x7fELF|MZ.\0|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe", re.S), "a program"),
    (re.compile(rb"\x80[\x02-\x05].", re.S), "a pickle, which is never read"),
    (re.compile(rb"\x04\x22\x4d\x18"), "compressed with lz4: compress it with zstd or gzip"),
)
_HEAD = 2**12
_LONGEST_LINE = 2**20
"""Bytes that are looked at where a file begins like records."""
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v\d+\n(.+\n)*oid sha256:")


class Found(NamedTuple):
    """What a file is: its format, or the reason why it cannot be read."""

    format: Format | None
    reason: str = ""


def format_of(path: Path) -> Found:
    """The format of a file. A suffix that is known decides (the one before .gz and its like), else
    the content does. Raises OSError, or what else reading a compressed file raises; CorpusError
    where it is named as compressed and is not."""
    name, compression = _bare_name(path.name.lower())
    if name.endswith(_ARCHIVES):
        return Found(None, _ARCHIVE)
    if (method := _UNREAD.get(Path(name).suffix)) is not None:
        return Found(None, f"compressed with {method}: compress it with zstd or gzip")
    own, head = _heads(path)
    if _POINTER.match(own):
        raise CorpusError(
            f"{path}: is a pointer of Git LFS in place of the file; fetch that with git lfs pull"
        )
    if compression and not compression_of(own):
        raise CorpusError(
            f"{path}: cannot be read (named as compressed, and it is not); rename or fetch it again"
        )
    suffix = Path(name).suffix
    if suffix in _RECORDS and suffix != ".json":
        return Found(_RECORDS[suffix])
    return _by_content(path, head, suffix)


def holds_nul(path: Path) -> bool:
    """Whether a file begins like something else than text in an encoding of single bytes. Raises
    as `format_of` does."""
    _, head = _heads(path)
    return b"\0" in head and marked(head) is None


def _heads(path: Path, size: int = _HEAD) -> tuple[bytes, bytes]:
    """A file's first bytes, as they are and decompressed."""
    with path.open("rb") as file:
        own = file.read(size)
    if compression_of(own) is None:
        return own, own
    with HashedFile(path) as raw:
        return own, decompressed(raw).read(size)


def _bare_name(name: str) -> tuple[str, str | None]:
    """A file's name less the suffix that says how it is compressed, and how."""
    for suffix, compression in COMPRESSED.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), compression
    return name, None


def _by_content(path: Path, head: bytes, suffix: str) -> Found:
    if marked(head) is None:
        for magic, what in _MAGIC:
            if magic.match(head):
                return Found(None, what)
        if suffix not in _TEXT_SUFFIXES and suffix != ".json":
            if head.startswith(PARQUET):
                return Found("parquet")
            if head.startswith(ARROW_FILE):
                return Found("arrow")
    if suffix == ".json":
        return Found("json")
    if (suffix not in _TEXT_SUFFIXES or suffix == ".jl") and _begins_with_records(path, head):
        return Found("jsonl")
    return Found("text")


def _begins_with_records(path: Path, head: bytes) -> bool:
    """Whether the first line is a JSON object, and the second one, if there is one, begins like
    another; of a line that is longer than what is looked at, whether it begins like one."""
    encoding, mark = encoding_of(head, None)
    if not head[mark:].decode(encoding, "replace").startswith("{"):
        return False
    _, head = _heads(path, _LONGEST_LINE)
    first, _, rest = head[mark:].decode(encoding, "replace").partition("\n")
    if rest.strip() and not rest.strip().startswith("{"):
        return False
    if len(head) >= _LONGEST_LINE and not rest:
        return first.startswith('{"')
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
