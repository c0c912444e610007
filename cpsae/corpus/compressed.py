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
"""Bytes for the zstd decompressor, which gives all that they stand for at once."""


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
        "zstd": lambda: _Zstd(buffered),
        "bz2": lambda: bz2.BZ2File(buffered),
        "xz": lambda: lzma.LZMAFile(buffered),  # noqa: SIM115 - closed with what it is wrapped in
    }
    return io.BufferedReader(opened[compression](), _AT_ONCE)


class _Zstd(io.RawIOBase):
    """Frames, one after another. The library's own reader takes a frame that was cut short for
    one that ends there, so each frame's end is looked for here."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input and not (data := self._file.read(_FRAME_AT_ONCE)):
                if self._frame is not None:
                    raise EOFError("the zstd data ends in the middle of a frame")
                return 0
            if not self._input:
                self._input = data
            self._decompress()
        count = min(len(buffer), len(self._output))
        memoryview(buffer)[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        self._output = memoryview(self._frame.decompress(self._input))
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None
