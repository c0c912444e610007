"""Where the objects of a store are kept. A key is an object's path in the store, such as
`activations/c/1/0`; nothing outside this module makes a path of one.

An object is whole or absent: that is what a bucket promises, and what all of the store stands on.
"""

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cpsae.durable import disk_errors, fsync_folder, settle, write_atomic
from cpsae.events import OnEvent, ignore
from cpsae.locks import is_locked, writer_lock


class Bucket(Protocol):
    """A place for objects."""

    name: str
    """As errors call it: a path, a URL."""

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Bytes of each of these objects that is there."""
        ...

    def read(self, key: str) -> npt.NDArray[np.uint8]:
        """All bytes of an object, read-only. Raises FileNotFoundError where there is none, OSError
        where it cannot be read."""
        ...

    def stamp(self, key: str) -> Hashable:
        """What changes when an object is replaced. Raises FileNotFoundError where there is none."""
        ...

    def write(self, key: str, *pieces: Any) -> None:
        """Put the concatenated pieces (anything with the buffer protocol), whole or not at all.
        Raises DiskError where there is no room or no permission."""
        ...

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...

    def tidy(self) -> None:
        """Remove what killed writers left half-written, and make durable what they named last,
        while nobody else writes."""
        ...

    def lock(self, what: str, on_event: OnEvent = ignore) -> AbstractContextManager[None]:
        """Be the one writer until the block ends. Raises BusyError where another one is."""
        ...

    def locked(self) -> bool:
        """Whether somebody is seen to hold that lock."""
        ...


class Folder:
    """A bucket that is a local folder; what is read is mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """One system call a key."""
        found = {}
        for key in keys:
            try:
                found[key] = (self.path / key).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def read(self, key: str) -> npt.NDArray[np.uint8]:
        """Mapped: nothing is copied."""
        try:
            return np.asarray(np.memmap(self.path / key, dtype=np.uint8, mode="r"))
        except ValueError:  # numpy cannot map an empty file
            return np.empty(0, np.uint8)

    def stamp(self, key: str) -> Hashable:
        """Inode, size and time of change."""
        status = (self.path / key).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def write(self, key: str, *pieces: Any) -> None:
        """See `cpsae.durable.write_atomic`."""
        write_atomic(self.path / key, *pieces)

    def remove(self, key: str) -> None:
        """Durably."""
        with disk_errors(self.path / key):
            (self.path / key).unlink(missing_ok=True)
            if (self.path / key).parent.is_dir():
                fsync_folder((self.path / key).parent)

    def tidy(self) -> None:
        """See `cpsae.durable.settle`."""
        settle(self.path)

    def lock(self, what: str, on_event: OnEvent = ignore) -> AbstractContextManager[None]:
        """See `cpsae.locks.writer_lock`."""
        return writer_lock(self.path, what, on_event)

    def locked(self) -> bool:
        """See `cpsae.locks.is_locked`."""
        return is_locked(self.path)
