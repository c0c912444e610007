"""Bytes to text. An encoding is never guessed: it is UTF-8, or what a byte-order mark or the user
says; what does not fit is counted."""

import codecs
import io
from collections.abc import Iterator

from cpsae.errors import CorpusError

DEFAULT = "utf-8"
MOST_BAD = 1000
"""Characters of which one may be bad."""
_MARKS = (  # UTF-32's begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_MARK = 4
_NEED_A_MARK = ("utf-16", "utf-32")
_BYTES_AT_ONCE = 2**16
_REPLACEMENT = "\ufffd"
_SAMPLE = 2**16


def marked(head: bytes) -> tuple[str, int] | None:
    """The encoding that a byte-order mark tells, and the mark's length; None without a mark."""
    return next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), None)


def encoding_of(head: bytes, encoding: str | None, name: str = "") -> tuple[str, int]:
    """How bytes that begin so are encoded, and how many of them are a mark: a byte-order mark wins
    over what the user named, and that over UTF-8. Raises CorpusError, which calls the file by
    `name`, where only a mark would tell."""
    found = marked(head) or (encoding or DEFAULT, 0)
    own = codecs.lookup(found[0]).name
    if head and own in _NEED_A_MARK:
        raise CorpusError(
            f"{name}: has no byte-order mark, without which {own} may be {own}-le or {own}-be; "
            "name the right one with --encoding"
        )
    return found


class Decoder:
    """Text from bytes, piece by piece; what is no text in the encoding becomes U+FFFD, and is
    counted."""

    def __init__(self, encoding: str) -> None:
        make = codecs.getincrementaldecoder(encoding)
        self._strict, self._lenient = make("strict"), make("replace")
        self._is_utf8 = codecs.lookup(encoding).name == "utf-8"
        self.characters = 0
        self.bad = 0
        """Of these, how many were put for what could not be decoded."""
        self.sample = b""
        """Bytes where the first bad one was found."""

    def decode(self, data: bytes, final: bool = False) -> str:
        """The text that these bytes add."""
        state = self._strict.getstate()
        try:
            text = self._strict.decode(data, final)
        except UnicodeDecodeError:
            self._lenient.setstate(state)
            text = self._lenient.decode(data, final)
            self._strict.setstate(self._lenient.getstate())
            self._count(state[0] + data, text)
        self.characters += len(text)
        return text

    def _count(self, data: bytes, text: str) -> None:
        self.sample = self.sample or data[:_SAMPLE]
        spelled = data.count(_REPLACEMENT.encode()) if self._is_utf8 else 0
        self.bad += max(1, text.count(_REPLACEMENT) - spelled)

    @property
    def is_bad(self) -> bool:
        """Whether so much could not be decoded that the encoding must be another."""
        return self.bad * MOST_BAD > self.characters


def decoded(file: io.BufferedReader, decoder: Decoder) -> Iterator[str]:
    """The text of what is left of a file, in pieces, the last of which may be empty."""
    while data := file.read(_BYTES_AT_ONCE):
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def badly_decoded(name: str, encoding: str, decoder: Decoder) -> CorpusError:
    """The error for a file of which too much is no text in its encoding."""
    return CorpusError(
        f"{name}: is not {encoding.upper()} ({decoder.bad:,} of its {decoder.characters:,} "
        f"characters cannot be decoded); {_advice(decoder.sample)}"
    )


def not_in(name: str, encoding: str, data: bytes) -> CorpusError:
    """The error for a record, at `name`, that is not in the encoding of its file."""
    return CorpusError(f"{name}: is not {encoding.upper()}; {_advice(data)}")


def _advice(sample: bytes) -> str:
    """What to do, with the likely encoding: only the user can tell whether it is the right one."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    likely = f" (it looks like {best.encoding})" if best and best.encoding != "utf_8" else ""
    return f"name its encoding with --encoding{likely}, or convert it"
