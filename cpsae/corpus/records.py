"""Records in files of text: JSON (one object a line, or a list of objects) and tables with a
header (.csv, .tsv). Read as they come: one record is held at a time."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from cpsae.corpus.encodings import LONGEST_MARK, encoding_of, not_in
from cpsae.corpus.fields import named_twice
from cpsae.errors import CorpusError, first_line

Records = Iterator[tuple[str, Any]]
"""Each record with where it is, for an error."""

_CHARACTERS_AT_ONCE = 2**16
_LONGEST_CELL = 2**31 - 1
_BLANKS = re.compile(r"[ \t\n\r]*")
_WIDE = ("utf-16", "utf-32")
"""Encodings in which a byte 0x0A need not be a line's end."""
_LONGEST_FIRST = 2**26
_KEYS_SHOWN = 6
NO_JSON = "not JSON"
"""Why a .json file is no records, where it should have been."""
_EDGE = 16
"""An error this near to the end of what was read may come of what was not read yet."""


def json_lines(file: io.BufferedReader, name: str, encoding: str | None, example: str) -> Records:
    """The values of a file with one on each line that is not blank. example: the field that a
    record should have. Raises CorpusError for a line that is not JSON, or not in the encoding."""
    for number, line in enumerate(_lines(file, name, encoding), 1):
        if not line or line.isspace():
            continue
        where = f"{name}, line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(
                f"{where}: is not JSON ({first_line(error)}); expected one object a line, like "
                f'{{"{example}": "…"}}; mend or remove the line'
            ) from error


def json_records(file: io.BufferedReader, name: str, encoding: str | None) -> Records:
    """The objects of one list, or of a file of objects one after another, lines or not. Raises
    CorpusError where it is not JSON, or not in the encoding."""
    text = JsonText(texts(file, name, encoding))
    in_list = text.peek() == "["
    if in_list:
        text.skip()
    number = 0
    while (following := text.peek()) and following != "]":
        number += 1
        where = f"{name}, record {number}"
        yield where, text.value(where)
        if in_list and text.peek() == ",":
            text.skip()
        elif in_list and text.peek() != "]":
            raise CorpusError(f"{where}: is followed by no comma and no end of the list")
    if in_list != (following == "]"):
        raise CorpusError(f"{name}: ends in the middle of its list of records; fetch it again")
    if in_list:
        text.skip()
        if text.peek():
            raise CorpusError(f"{name}: goes on behind its list of records; mend the file")


def why_no_records(file: io.BufferedReader, name: str, encoding: str | None, field: str) -> str:
    """Why a .json file is not records: what it is instead; "" where it is. A single object is one
    if it has the field. Reads no more than its first value."""
    text = JsonText(texts(file, name, encoding), _LONGEST_FIRST)
    first = text.peek()
    if first == "[":
        text.skip()
        return "" if text.peek() in ("{", "]") else "a list of something else than objects"
    if not first:
        return ""
    try:
        value = text.value(name)
    except CorpusError:
        return NO_JSON
    if first != "{":
        return "no JSON object or list"
    if text.peek() or field in value:
        return ""
    keys = ", ".join(map(str, list(value)[:_KEYS_SHOWN]))
    return f"one object with no field '{field}' (there are: {keys or 'none'})"


class JsonText:
    """JSON values, one after another, of a text that comes in pieces."""

    def __init__(self, pieces: Iterator[str], longest: int | None = None) -> None:
        """longest: characters after which a value is given up; None: never."""
        self._pieces = pieces
        self._longest = longest
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Go on behind the character that `peek` gave."""
        self._at += 1

    def value(self, where: str) -> Any:
        """The next value. Raises CorpusError, which names `where`."""
        self.peek()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
                return value
            except (ValueError, RecursionError) as error:
                position = getattr(error, "pos", 0)
                cut = position > len(self._text) - _EDGE or "Unterminated" in str(error)
                longest = self._longest or len(self._text)
                if cut and len(self._text) - self._at <= longest and self._more():
                    continue
                raise CorpusError(
                    f"{where}: is not JSON ({first_line(error)}); expected a list of objects, or "
                    "one object a line; mend the file"
                ) from error

    def _more(self) -> bool:
        """Read on, as much again as is held: what is long is not parsed too often."""
        pieces = [self._text[self._at :]]
        wanted = max(_CHARACTERS_AT_ONCE, len(pieces[0]))
        while wanted > 0 and (piece := next(self._pieces, "")):
            pieces.append(piece)
            wanted -= len(piece)
        self._text, self._at = "".join(pieces), 0
        return len(pieces) > 1


def table_rows(
    file: io.BufferedReader, name: str, encoding: str | None, field: str, tabs: bool
) -> Records:
    """The rows of a .csv (or .tsv, with `tabs`) file, by the names in its header. Raises
    CorpusError where two columns have the name `field`, for a row with another number of cells, or
    with quotes that do not close."""
    csv.field_size_limit(_LONGEST_CELL)
    head, decoded = _decoded(file, name, encoding)
    rows = csv.reader(decoded, delimiter="\t" if tabs else ",", strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        if header.count(field) > 1:
            raise named_twice(name, field)
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if row and len(row) != len(header):
                raise CorpusError(
                    f"{where}: has {len(row)} cells, and the header {len(header)}; mend the row, "
                    "or give the records as .jsonl"
                )
            if row:
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise CorpusError(
            f"{name}, line {rows.line_num}: is no row of a table ({first_line(error)}); mend it, "
            "or give the records as .jsonl"
        ) from error
    except UnicodeDecodeError as error:
        where = f"{name}, near line {rows.line_num + 1}"
        raise not_in(where, head, error.object) from error


def _decoded(
    file: io.BufferedReader, name: str, encoding: str | None
) -> tuple[str, io.TextIOWrapper]:
    """The encoding of a file, and its text, strictly decoded, with line ends as they are."""
    found, mark = encoding_of(file.peek(LONGEST_MARK)[:LONGEST_MARK], encoding, name)
    file.read(mark)
    return found, io.TextIOWrapper(file, encoding=found, errors="strict", newline="")


def texts(file: io.BufferedReader, name: str, encoding: str | None) -> Iterator[str]:
    """The text of a file of records, in pieces, strictly decoded. Raises CorpusError."""
    found, decoded = _decoded(file, name, encoding)
    try:
        while piece := decoded.read(_CHARACTERS_AT_ONCE):
            yield piece
    except UnicodeDecodeError as error:
        raise not_in(name, found, error.object) from error


def _lines(file: io.BufferedReader, name: str, encoding: str | None) -> Iterator[str]:
    """The lines of a file, decoded line by line where a line's end is one byte."""
    found, mark = encoding_of(file.peek(LONGEST_MARK)[:LONGEST_MARK], encoding, name)
    file.read(mark)
    wide = found.replace("_", "-").lower().startswith(_WIDE)
    lines = io.TextIOWrapper(file, encoding=found, newline="\n") if wide else file
    number = 0
    try:
        for line in lines:
            yield line.decode(found) if isinstance(line, bytes) else line
            number += 1
    except UnicodeDecodeError as error:
        raise not_in(f"{name}, line {number + 1}", found, error.object) from error
