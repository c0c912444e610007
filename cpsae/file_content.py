"""Whether a file still holds what it held: by size and times where these are as they were, else by
its bytes, of which a hash was kept."""

import hashlib
import os
from pathlib import Path

from cpsae.config.base import Record

_AT_ONCE = 2**20


class FileRecord(Record):
    """A file as it was when it was read."""

    name: str
    """Its path from the folder that was given, or its name."""
    bytes: int
    modified_ns: int
    changed_ns: int
    """Of its inode: also where a file was copied over with the times of the old one."""
    reached: int | None = None
    """Bytes from the start that were read; None: all of them count."""
    sha256: str | None = None
    """Of those bytes; None: it was not hashed."""


def recorded_name(name: str) -> str:
    """A file's name as records have it: bytes that are no UTF-8, which JSON has not, as \\xff."""
    return os.fsencode(name).decode(errors="backslashreplace")


def record_of(
    name: str,
    path: Path,
    status: os.stat_result | None = None,
    hashed: tuple[int, str] | None = None,
    *,
    with_hash: bool = True,
) -> FileRecord:
    """A file's record. status: from before it was read; hashed: how many of its bytes were read,
    and their hash, else all of them are read here. Raises OSError."""
    status = status or path.stat()
    reached, digest = hashed if hashed else (None, None)
    if digest is None and with_hash:
        digest = _hash(path, None)
    return FileRecord(
        name=name,
        bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        reached=reached,
        sha256=digest,
    )


def is_same(record: FileRecord, path: Path) -> bool | None:
    """Whether a file holds what it held; None: its times differ, and no hash was kept. A file that
    is gone is not the same. Raises OSError where it cannot be read."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if status.st_size != record.bytes:
        return False
    if (status.st_mtime_ns, status.st_ctime_ns) == (record.modified_ns, record.changed_ns):
        return True
    return None if record.sha256 is None else _hash(path, record.reached) == record.sha256


def _hash(path: Path, length: int | None) -> str:
    """SHA-256 of a file's first bytes; None: all."""
    digest, left = hashlib.sha256(), path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while left > 0 and (data := file.read(min(left, _AT_ONCE))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()
