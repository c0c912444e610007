"""Where the objects of a store are kept. A key is an object's path in the store, such as
`activations/c/1/0`; nothing outside this module makes a path of one.

An object is whole or absent: that is what a bucket promises, and what all of the store stands on.
"""

import shutil
from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cpsae.durable import (
    LOCK_NAME,
    disk_errors,
    fsync_folder,
    is_leftover,
    settle,
    sync_name,
    write_atomic,
)
from cpsae.events import OnEvent, ignore
from cpsae.locks import (
    fellow_lock,
    is_gone,
    is_locked,
    remove_fellow_lock,
    set_aside,
    writer_lock,
)


class Bucket(Protocol):
    """A place for objects."""

    name: str
    """As errors call it: a path, a URL."""

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Bytes of each of these objects that is there."""
        ...

    def read(self, key: str) -> npt.NDArray[np.uint8]:
        """All bytes of an object, read-only. Raises FileNotFoundError where there is none, OSError
        where it cannot be read, RemoteError where nobody answers."""
        ...

    def forget(self, key: str) -> bool:
        """The bytes that were read of an object are not right: let go of what is kept of it.
        Whether they came over a network, so that another reading may give others."""
        ...

    def prefetch(self, keys: Iterable[str]) -> None:
        """These are read next, in this order, and those that were named before and are not begun
        are not: begin to bring them here, if they are elsewhere. Raises nothing."""
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


class Home(Bucket, Protocol):
    """A bucket in which stores are made: what is asked of the place itself, and of all who write
    there."""

    def folders(self) -> list[str]:
        """Names of what is one level below and holds more."""
        ...

    def is_occupied(self) -> bool:
        """Whether anything is here but what a killed writer may have left where it made nothing."""
        ...

    def total_bytes(self) -> int:
        """Of all that is here."""
        ...

    def clear(self) -> None:
        """Remove all but the lock, whose holder calls."""
        ...

    def settle(self) -> None:
        """Make durable that this is here, which whoever made it may not have done."""
        ...

    def fellow(self) -> AbstractContextManager[None]:
        """Be seen to write, as one of any number beside the one writer, until the block ends."""
        ...

    def is_gone(self, fellows: bool = False) -> bool:
        """Whether nobody can be writing, as the one writer or, with `fellows`, beside it."""
        ...

    def remove_fellows(self) -> None:
        """When all is done: what fellows left behind."""
        ...

    def set_aside(self, what: str) -> str:
        """Rename it to the first free `<name>.old-N`; its new name. Raises BusyError where somebody
        is writing it, RemoteError where nothing can be renamed."""
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

    def forget(self, key: str) -> bool:  # noqa: ARG002
        """Nothing is kept: it is the file itself."""
        return False

    def prefetch(self, keys: Iterable[str]) -> None:
        """The system does that."""

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

    def folders(self) -> list[str]:
        """Folders in it, and links to some."""
        return [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []

    def is_occupied(self) -> bool:
        """A file in its place counts."""
        if not self.path.exists():
            return False
        return not self.path.is_dir() or not all(map(is_leftover, self.path.iterdir()))

    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def clear(self) -> None:
        """The folder itself stays, for the lock is in it."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != LOCK_NAME:
                entry.unlink()

    def settle(self) -> None:
        """See `cpsae.durable.sync_name`."""
        sync_name(self.path)

    def fellow(self) -> AbstractContextManager[None]:
        """See `cpsae.locks.fellow_lock`."""
        return fellow_lock(self.path)

    def is_gone(self, fellows: bool = False) -> bool:
        """See `cpsae.locks.is_gone`."""
        return is_gone(self.path, fellows)

    def remove_fellows(self) -> None:
        """See `cpsae.locks.remove_fellow_lock`."""
        remove_fellow_lock(self.path)

    def set_aside(self, what: str) -> str:
        """See `cpsae.locks.set_aside`."""
        return str(set_aside(self.path, what))
