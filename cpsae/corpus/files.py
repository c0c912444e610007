"""Local text: plain and source files, .jsonl and .jsonl.gz, .parquet, and folders of them."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpsae.errors import CorpusError

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")
PARQUET_SUFFIX = ".parquet"
_TEXT_SUFFIXES = """
    .txt .text .md .rst .tex .org .html .htm .xml .css .json .csv .tsv .yaml .yml .toml .ini .cfg
    .py .pyi .ipynb .c .h .cc .cpp .hpp .cu .rs .go .java .kt .scala .cs .swift .js .ts .jsx .tsx
    .rb .php .pl .lua .jl .hs .ml .ex .erl .clj .lisp .el .sh .bash .ps1 .sql .proto .cmake .log
"""
SUFFIXES = (*JSONL_SUFFIXES, PARQUET_SUFFIX, *_TEXT_SUFFIXES.split())
"""A name that ends in one of these is meant as a path, whether it exists or not."""

_ROWS_A_BATCH = 256


def list_files(root: Path) -> list[Path]:
    """`root` itself where it is a file, else the files below it, sorted by their relative names.

    Hidden files and folders and `__pycache__` are left out, and so are links to folders: they
    could lead in a circle. Raises CorpusError where a folder cannot be read.
    """
    if not root.is_dir():
        return [root]

    def fail(error: OSError) -> None:
        raise CorpusError(f"{error.filename}: cannot be read ({error.strerror})") from error

    files = []
    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        paths = (Path(folder, name) for name in names if name[0] != ".")
        files += [path for path in paths if path.is_file()]
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def read_file(file: Path, text_field: str, alone: bool = False) -> Iterator[str]:
    """The documents of one file: records of .jsonl and .parquet, else the whole text.

    In a folder a file that is not text (it holds a NUL byte) gives nothing; where it is `alone`
    what the user named, that is a CorpusError. Bytes that are not UTF-8 become U+FFFD. Raises
    CorpusError too where the file cannot be read or is malformed.
    """
    name = file.name.lower()
    try:
        if name.endswith(JSONL_SUFFIXES):
            yield from _jsonl(file, text_field)
        elif name.endswith(PARQUET_SUFFIX):
            yield from _parquet(file, text_field)
        else:
            data = file.read_bytes()
            if b"\0" not in data:
                yield data.decode("utf-8-sig", errors="replace")
            elif alone:
                raise CorpusError(
                    f"{file}: is not text (it holds NUL bytes); expected text, .jsonl or .parquet"
                )
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{file}: cannot be read ({_reason(error)}); check the file") from error


def text_of(record: Any, text_field: str, where: str) -> str:
    """The text of one record; "" where it is null. Raises CorpusError, which names `where`."""
    if not isinstance(record, dict):
        raise CorpusError(
            f"{where}: expected an object with a field '{text_field}', found {_kind(record)}"
        )
    if text_field not in record:
        raise CorpusError(f"{where}: {_no_field(text_field, list(record))}")
    text = record[text_field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise CorpusError(
            f"{where}: expected text in the field '{text_field}', found {_kind(text)}; name "
            "another with --text-field, or mend the record"
        )
    return text


def is_blank(text: str) -> bool:
    """Whether a text holds nothing but blanks (without copying it, as strip would)."""
    return not text or text.isspace()


def _jsonl(file: Path, text_field: str) -> Iterator[str]:
    zipped = file.name.lower().endswith(".gz")
    with gzip.open(file, "rb") if zipped else file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            where = f"{file}, line {number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                raise CorpusError(
                    f"{where}: is not JSON ({_reason(error)}); expected one object a line, like "
                    f'{{"{text_field}": "…"}}; mend or remove the line'
                ) from error
            yield _encodable(text_of(record, text_field, where))


def _encodable(text: str) -> str:
    """JSON may escape half a surrogate pair, which no tokenizer takes: it becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _parquet(file: Path, text_field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            if text_field not in schema.names:
                raise CorpusError(f"{file}: {_no_field(text_field, schema.names)}")
            column = schema.field(text_field).type
            if pa.types.is_dictionary(column):
                column = column.value_type
            if not (pa.types.is_string(column) or pa.types.is_large_string(column)):
                raise CorpusError(
                    f"{file}: expected text in the field '{text_field}', found {column}; name "
                    "another with --text-field"
                )
            for batch in table.iter_batches(batch_size=_ROWS_A_BATCH, columns=[text_field]):
                yield from (text or "" for text in batch.column(text_field).to_pylist())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{file}: is not a whole Parquet file of text ({_reason(error)}); fetch or write it "
            "again"
        ) from error


def _no_field(text_field: str, fields: list[str]) -> str:
    there = ", ".join(map(str, fields)) or "none"
    return f"has no field '{text_field}' (there are: {there}); name one with --text-field"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def _reason(error: Exception) -> str:
    """The first line of an error's text, shortened."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
