"""The documents of one file, in whatever format, with what was read of it."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpsae.corpus.compressed import HashedFile, compression_of, decompressed
from cpsae.corpus.document import Document, LongText
from cpsae.corpus.encodings import LONGEST_MARK, Decoder, badly_decoded, decoded, encoding_of
from cpsae.corpus.fields import Field
from cpsae.corpus.folder import Source
from cpsae.corpus.reading_errors import reading_errors
from cpsae.corpus.records import Records, json_lines, json_records, table_rows
from cpsae.corpus.tables import arrow_values, parquet_values
from cpsae.errors import CorpusError

_SHORT = 2**20
"""Bytes up to which a text is held whole."""
_SCANNED = 2**26
"""Bytes of a long text that are looked at before the first of them is used."""


class NotTextError(Exception):
    """A file that was taken for text holds a NUL."""


@dataclass
class FileRead:
    """What was read of one file: enough to tell, later, whether it is still the same."""

    source: Source
    status: os.stat_result
    """Before it was read."""
    raw: HashedFile | None = None
    """What was read of it, if that was from its start on; None: all of it counts."""
    replaced: int = 0
    """Characters that could not be decoded, and became U+FFFD."""


def read_source(
    source: Source, wanted: Field, encoding: str | None
) -> tuple[FileRead, Iterator[Document]]:
    """A file's documents, which are read as they are asked for, and what is read of it by then.

    Raises CorpusError, then or later, where the file is unreadable, damaged or malformed, or has no
    such field; NotTextError where it was taken for text and is none.
    """
    with reading_errors(source.path):
        read = FileRead(source, source.path.stat())
    return read, _documents(read, wanted, encoding)


def _documents(read: FileRead, wanted: Field, encoding: str | None) -> Iterator[Document]:
    path, name, kind = read.source.path, str(read.source.path), read.source.format
    with reading_errors(path):
        if kind in ("parquet", "arrow") and not _is_compressed(path):
            values = parquet_values if kind == "parquet" else arrow_values
            yield from (wanted.of_value(value, w) for w, value in values(path, name, wanted))
            return
        with HashedFile(path) as raw:
            read.raw = raw
            file = decompressed(raw)
            if kind == "text":
                yield from _text(file, read, encoding)
            elif kind in ("parquet", "arrow"):
                values = parquet_values if kind == "parquet" else arrow_values
                yield from (wanted.of_value(value, w) for w, value in values(file, name, wanted))
            else:
                records = _records(file, read.source, encoding, wanted.name)
                yield from (wanted.of_record(record, where) for where, record in records)


def _records(
    file: io.BufferedReader, source: Source, encoding: str | None, example: str
) -> Records:
    name = str(source.path)
    if source.format == "jsonl":
        return json_lines(file, name, encoding, example)
    if source.format == "json":
        return json_records(file, name, encoding)
    return table_rows(file, name, encoding, example, tabs=source.format == "tsv")


def _text(file: io.BufferedReader, read: FileRead, encoding: str | None) -> Iterator[Document]:
    """One document: all of the file. A long one is looked at first, then read as it is used."""
    name = str(read.source.path)
    start = file.read(_SHORT)
    found, mark = encoding_of(start[:LONGEST_MARK], encoding, name)
    decoder = Decoder(found)
    if len(start) < _SHORT:
        text = decoder.decode(start[mark:], final=True)
        _refuse_nul(text)
        _refuse_bad(decoder, name, found)
        read.replaced = decoder.bad
        yield text
        return
    scanned = _scan(read.source.path, name, found, mark)

    def pieces() -> Iterator[str]:
        with reading_errors(read.source.path):
            yield decoder.decode(start[mark:])
            for piece in decoded(file, decoder):
                if decoder.characters > scanned:
                    if "\0" in piece:
                        raise CorpusError(
                            f"{name}: holds a NUL after {decoder.characters - len(piece):,} "
                            "characters of text; mend the file, or take it away"
                        )
                    _refuse_bad(decoder, name, found)
                read.replaced = decoder.bad
                yield piece

    yield LongText(pieces())


def _scan(path: Path, name: str, encoding: str, mark: int) -> int:
    """Look whether the beginning of a long file is text; how many characters were looked at."""
    decoder, seen = Decoder(encoding), 0
    with HashedFile(path) as raw:
        file = decompressed(raw)
        file.read(mark)
        while seen < _SCANNED and (data := file.read(_SHORT)):
            seen += len(data)
            _refuse_nul(decoder.decode(data))
    _refuse_bad(decoder, name, encoding)
    return decoder.characters


def _refuse_nul(text: str) -> None:
    if "\0" in text:
        raise NotTextError


def _refuse_bad(decoder: Decoder, name: str, encoding: str) -> None:
    if decoder.is_bad:
        raise badly_decoded(name, encoding, decoder)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return compression_of(file.read(16)) is not None
