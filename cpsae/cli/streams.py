"""Standard output and standard error, which may go away while the work goes on: a closed terminal,
the other end of a pipe, a full disk. What shows progress then falls silent; nothing else changes.
"""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

_GONE = (OSError, ValueError)
"""What writing raises where the place is gone; ValueError: the stream was closed."""


class LastingStream:
    """A text stream that swallows everything once it cannot be written any more."""

    def __init__(self, stream: TextIO | None) -> None:
        """stream: None where the process was started without one."""
        self._stream = stream

    @property
    def encoding(self) -> str:
        """Of the stream, for who looks whether a character can be shown."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write what can be written."""
        if self._stream is not None:
            try:
                self._write(self._stream, text)
            except _GONE:
                self._lose()
        return len(text)

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:  # a ValueError, but the stream is still there
            encoding = self.encoding
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def flush(self) -> None:
        """Flush what can be flushed."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except _GONE:
                self._lose()

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        try:
            return self._stream is not None and self._stream.isatty()
        except _GONE:
            return False

    def fileno(self) -> int:
        """Raises OSError where there is none."""
        if self._stream is None:
            raise OSError("no such stream")
        return self._stream.fileno()

    def _lose(self) -> None:
        """Send what is still buffered nowhere, or Python would complain of it when it ends."""
        stream, self._stream = self._stream, None
        with suppress(*_GONE):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)


def escape_what_cannot_be_encoded() -> None:
    """Let standard output and standard error of this process show an escape for what their encoding
    has no sign for, whoever writes: click's help, a library's warning."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def standard_output() -> Any:
    """A lasting stream over what sys.stdout is now; Any, as rich wants a whole file of it."""
    return LastingStream(sys.stdout)


def standard_error() -> Any:
    """The same over sys.stderr."""
    return LastingStream(sys.stderr)
