"""Files as the bytes that they hold, whatever they are compressed with; hashed as they are read."""

import bz2
import gzip
import hashlib
import io
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import zstandard

Compression = Literal["gzip", "zstd", "bz2", "xz"]

SUFFIXES: dict[str, Compression] = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
}
_MAGIC: dict[Compression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
    "bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
}
_LARGEST_WINDOW = 2**31
"""Bytes that a zstd frame may look back: as much as `zstd --long=31` writes."""
_AT_ONCE = 2**17
_FRAME_AT_ONCE = 2**13
"""Bytes for a decompressor, which gives all that they stand for at once."""


class HashedFile(io.RawIOBase):
    """A file's own bytes, of which those that were read are counted and hashed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._digest = hashlib.sha256()
        self.reached = 0
        """Bytes that were read."""

    @property
    def sha256(self) -> str:
        """Of the bytes that were read."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:count])
        self.reached += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def compression_of(head: bytes) -> Compression | None:
    """What bytes that begin so are compressed with; None: they are not."""
    return next((name for name, magic in _MAGIC.items() if magic.match(head)), None)


def decompressed(raw: io.RawIOBase) -> io.BufferedReader:
    """The bytes that a file holds. Reading raises an error of the library in question, or EOFError,
    where it is damaged or cut short."""
    buffered: io.BufferedReader = io.BufferedReader(raw, _AT_ONCE)
    compression = compression_of(buffered.peek(16)[:16])
    if compression is None:
        return buffered
    opened: dict[Compression, Callable[[], Any]] = {
        "gzip": lambda: gzip.GzipFile(fileobj=buffered),
        "zstd": lambda: _Streams(buffered, _zstd_frame),
        "bz2": lambda: _Streams(buffered, bz2.BZ2Decompressor),
        "xz": lambda: _Streams(buffered, _xz_stream, padding=b"\0"),
    }
    return io.BufferedReader(opened[compression](), _AT_ONCE)


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


def _xz_stream() -> Any:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


class _Streams(io.RawIOBase):
    """Compressed streams, one after another, to the end of a file. The libraries' own readers take
    one that was cut short for one that ends there (zstd), or leave out what follows a whole one
    where that is damaged (bz2, xz), so each one's end is looked for here."""

    def __init__(
        self, file: io.BufferedReader, begin: Callable[[], Any], padding: bytes = b""
    ) -> None:
        """begin: a new decompressor; padding: what may stand between two streams."""
        self._file = file
        self._begin = begin
        self._padding = padding
        self._stream: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input and not (data := self._file.read(_FRAME_AT_ONCE)):
                if self._stream is not None:
                    raise EOFError("the compressed data ends in the middle of a stream")
                return 0
            if not self._input:
                self._input = data
            self._decompress()
        count = min(len(buffer), len(self._output))
        memoryview(buffer)[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        if self._stream is None:
            self._input = self._input.lstrip(self._padding)
            if not self._input:
                return
            self._stream = self._begin()
        self._output = memoryview(self._stream.decompress(self._input))
        self._input = b""
        if self._stream.eof:
            self._input = self._stream.unused_data
            self._stream = None
