"""What goes wrong while a file is read, as an error that names it."""

import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zstandard

from cpsae.errors import CorpusError, first_line

_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


@contextmanager
def reading_errors(file: Path) -> Iterator[None]:
    """Raises CorpusError where, within, a file is unreadable, cut short or damaged."""
    try:
        yield
    except _ERRORS as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CorpusError(f"{file}: cannot be read ({reason}); check the file") from error
