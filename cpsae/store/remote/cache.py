"""Copies of objects on this machine's disk, to be mapped: bounded, the longest unused go first.

A copy is the object's bytes and then 12 bytes, their CRC-32C and their number, little-endian; a
damaged one is as good as none. Several processes may use the same folder. What is evicted stays
readable where it is mapped, as POSIX has it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

import google_crc32c
import numpy as np
import numpy.typing as npt

from cpsae.durable import disk_errors
from cpsae.errors import DiskError
from cpsae.store.remote.settings import FOLDER, SIZE, default_bytes

try:
    import fcntl
except ImportError:  # not POSIX: processes there download the same object twice
    fcntl = None  # type: ignore[assignment]

Fill = Callable[[Callable[[memoryview], None]], None]
"""Calls what it is given with the object's bytes, block by block."""

_TRAILER = 12
_PART = ".part"
_LOCK = ".lock"


def name_of(*what: str) -> str:
    """The file of an object: of its URL, key and version."""
    return sha256("\0".join(what).encode()).hexdigest()


class DiskCache:
    """A folder of copies, `limit` bytes of them at most (None: see `default_bytes`)."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.folder = folder / "objects"
        self.limit = limit
        self._checked: dict[str, tuple[int, int, int]] = {}

    def find(self, name: str, size: int) -> npt.NDArray[np.uint8] | None:
        """The bytes of a copy, mapped; None where there is none that is whole and right."""
        path = self.folder / name
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size != size + _TRAILER:
                    raise ValueError("cut short")
                raw = np.memmap(file, np.uint8, "r", shape=(size + _TRAILER,))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.forget(name)
            return None
        known = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._checked.get(name) != known:
            if raw[size:].tobytes() != _trailer(google_crc32c.value(raw[:size]), size):
                self.forget(name)
                return None
            self._checked[name] = known
        with suppress(OSError):  # used now: file systems do not note that by themselves any more
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        return np.asarray(raw[:size])

    def has(self, name: str) -> bool:
        """Whether there is a copy, whole or not."""
        return (self.folder / name).exists()

    def fetch(self, name: str, size: int, fill: Fill) -> npt.NDArray[np.uint8] | None:
        """`find`, once `fill` has made it where it was not there; None where the limit has no room
        for it. Another process or thread that makes the same one is waited for.

        Raises DiskError where the disk is full or may not be written, and what `fill` raises.
        """
        found = self.find(name, size)
        if found is not None:
            return found
        with _cache_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._claimed(name) as file:
            found = self.find(name, size)
            if found is not None:
                return found
            if not self._reserved(file, size + _TRAILER):
                return None
            self._written(file, size, fill)
            with _cache_errors(self.folder):
                self._part(name).replace(self.folder / name)
        return self.find(name, size)

    def forget(self, name: str) -> None:
        """Remove a copy."""
        self._checked.pop(name, None)
        with suppress(OSError):
            (self.folder / name).unlink()

    def held(self) -> int:
        """Bytes of all that is in it, what is being made included."""
        return sum(size for _, size, _ in self._files())

    def _written(self, file: IO[bytes], size: int, fill: Fill) -> None:
        checksum = count = 0

        def put(block: memoryview) -> None:
            nonlocal checksum, count
            count += len(block)
            if count > size:
                raise EOFError(f"more than {size} bytes")
            values = np.frombuffer(block, np.uint8)
            values.flags.writeable = False  # the checksum's C code takes read-only buffers alone
            checksum = google_crc32c.extend(checksum, values) if count else 0
            with _cache_errors(self.folder):
                file.write(block)

        fill(put)
        if count != size:
            raise EOFError(f"{count} of {size} bytes")
        with _cache_errors(self.folder):
            file.write(_trailer(checksum, size))
            file.flush()

    def _part(self, name: str) -> Path:
        own = "" if fcntl is not None else f".{os.getpid()}"
        return self.folder / f".{name}{own}{_PART}"

    @contextmanager
    def _claimed(self, name: str) -> Iterator[IO[bytes]]:
        """The one file in which the copy is being made, which the kernel frees with its owner."""
        path = self._part(name)
        while True:
            with _cache_errors(self.folder):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            file = os.fdopen(descriptor, "r+b")
            _flock(file)
            if _names(path, file) or self.has(name):
                break
            file.close()  # its maker failed, and removed it while we waited
        try:
            yield file
        finally:
            if _names(path, file):  # nothing came of it
                with suppress(OSError):
                    path.unlink()
            file.close()

    def _reserved(self, file: IO[bytes], size: int) -> bool:
        """Whether there is room for `size` bytes once the longest unused copies are gone; `file`
        has that size then, so that others count it."""
        with _cache_errors(self.folder), (self.folder / _LOCK).open("ab") as lock:
            _flock(lock)
            files = sorted(self._files())
            held = sum(each for _, each, _ in files)
            limit = default_bytes(self.folder, held) if self.limit is None else self.limit
            if size > limit:
                return False
            for _, each, path in files:
                if held + size <= limit:
                    break
                if not path.name.endswith(_PART) or _is_stale(path):
                    with suppress(OSError):
                        path.unlink()
                        held -= each
            if held + size > limit:
                return False
            os.ftruncate(file.fileno(), size)
        return True

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Time of last use, bytes and path of each file but the lock."""
        try:
            entries = list(os.scandir(self.folder))
        except FileNotFoundError:
            return
        for entry in entries:
            with suppress(FileNotFoundError):  # another process removed it
                if entry.name != _LOCK:
                    status = entry.stat()
                    yield status.st_atime_ns, status.st_size, Path(entry.path)


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """The disk's refusals, and what to do where the cache is on a disk that is too small."""
    try:
        with disk_errors(folder):
            yield
    except DiskError as error:
        what = str(error).partition(";")[0]
        raise DiskError(
            f"{what}; it keeps copies of what is read from a URL: free some space, name another "
            f"folder with {FOLDER}, or a limit like 20G with {SIZE}"
        ) from None


def _trailer(checksum: int, size: int) -> bytes:
    return checksum.to_bytes(4, "little") + size.to_bytes(8, "little")


def _flock(file: IO[bytes]) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks: the same is downloaded twice
            fcntl.flock(file, fcntl.LOCK_EX)


def _names(path: Path, file: IO[bytes]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _is_stale(path: Path) -> bool:
    """Whether nobody is making this any more."""
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False
