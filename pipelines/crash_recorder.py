"""Records what a program does to the files below a folder, in this process: at every operation that
makes, renames, removes or syncs something, what the folder looks like, and what of that would
survive a power cut.

What is seen is read from the folder itself before each operation, so that nothing that was written
can be missed, by whichever call. What is durable follows from the calls of fsync alone: of a file
its bytes at its last fsync, of a folder its names at its own. That is what POSIX promises; real
file systems keep more.
"""

import builtins
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

_NAMES = ("rename", "replace", "unlink", "remove", "mkdir", "rmdir", "link", "symlink", "truncate")
_DESCRIPTORS = ("ftruncate", "pwrite", "write")
_SYNCS = ("fsync", "fdatasync")
_MAKES = os.O_CREAT | os.O_TRUNC

Names = dict[int, dict[str, int]]
"""Of each folder, by its number, the numbers of what is in it."""
Contents = dict[int, bytes]
"""Of each file, by its number, its bytes."""
ROOT = 0
"""The number of the folder that is watched."""


@dataclass(frozen=True)
class Cut:
    """A moment at which the power may go."""

    before: str
    """The operation that was about to be made."""
    names: Names
    contents: Contents
    """What is seen."""
    durable_names: Names
    durable_contents: Contents
    """What was synced; a file that never was is not in it."""


class Recorder:
    """Watches a folder, whose present content counts as durable, while its block runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cuts: list[Cut] = []
        self.operations: list[str] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self._held: list[int] = []
        self._seen: dict[int, tuple[tuple[int, int, int], bytes]] = {}
        self._lock = threading.RLock()
        self._open = os.open
        names, contents = self._look()
        self.durable_names, self.durable_contents = names, dict(contents)

    def forget(self, lost_names: Mapping[Path, set[str]], lost_files: set[Path]) -> None:
        """Of what is there, these names in these folders, and these files' bytes, are not durable:
        an earlier process was killed before it could sync them."""
        for folder, names in lost_names.items():
            number = self._number(folder)
            kept = {k: v for k, v in self.durable_names[number].items() if k not in names}
            self.durable_names[number] = kept
        for file in lost_files:
            self.durable_contents.pop(self._number(file), None)

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Until the block ends, every operation is a cut; fsync itself is not carried out."""
        try:
            with ExitStack() as stack:
                for name, wrapped in list(self._wrapped_os()):
                    stack.enter_context(patch.object(os, name, wrapped))
                opened = self._opening(io.open)
                with patch.object(io, "open", opened), patch.object(builtins, "open", opened):
                    yield self
            self._cut("the end")
        finally:
            for descriptor in self._held:
                os.close(descriptor)
            self._held.clear()

    def _wrapped_os(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name in (*_NAMES, *_DESCRIPTORS):
            yield name, self._before(name, getattr(os, name))
        for name in _SYNCS:
            yield name, self._synced(name)

        def opening(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if not flags & _MAKES:
                return self._open(path, flags, *rest, **more)
            with self._lock:
                self._cut(f"open {path}")
                return self._open(path, flags, *rest, **more)

        yield "open", opening

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                if self._concerns(arguments, more):
                    self._cut(f"{name} {arguments[0]}")
                return call(*arguments, **more)

        return recorded

    def _concerns(self, arguments: tuple[Any, ...], more: Mapping[str, Any]) -> bool:
        """Whether a call may be about what is watched: writes to other descriptors are many."""
        target = arguments[0]
        if isinstance(target, int):
            status = os.fstat(target)
            return (status.st_dev, status.st_ino) in self._numbers
        return bool(more.get("dir_fd")) or self.root in Path(os.path.abspath(target)).parents  # noqa: PTH100

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+") or isinstance(file, int):
                return call(file, mode, *rest, **more)
            with self._lock:
                self._cut(f"open {file}")
                return call(file, mode, *rest, **more)

        return opened

    def _synced(self, name: str) -> Callable[[int], None]:
        def synced(descriptor: Any) -> None:
            with self._lock:
                number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
                status = os.fstat(number)
                self._cut(f"{name} {Path(f'/proc/self/fd/{number}').readlink()}")
                known = self._numbers.get((status.st_dev, status.st_ino))
                if known is None:
                    return
                seen = self.cuts[-1]
                if stat.S_ISDIR(status.st_mode):
                    self.durable_names[known] = dict(seen.names[known])
                else:
                    self.durable_contents[known] = seen.contents.get(known, b"")

        return synced

    def _cut(self, operation: str) -> None:
        names, contents = self._look()
        durable = {folder: dict(entries) for folder, entries in self.durable_names.items()}
        self.operations.append(operation)
        self.cuts.append(Cut(operation, names, contents, durable, dict(self.durable_contents)))

    def _look(self) -> tuple[Names, Contents]:
        names: Names = {}
        contents: Contents = {}
        pending = [self.root]
        while pending:
            folder = pending.pop()
            inside = names.setdefault(self._number(folder), {})
            with os.scandir(folder) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    number = inside[entry.name] = self._number(path)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                    else:
                        contents[number] = self._read(number, path)
        return names, contents

    def _number(self, path: Path) -> int:
        """Its own, as long as this recorder lives: the file is held open, so that the system gives
        its inode to no other."""
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key not in self._numbers:
            self._held.append(self._open(path, os.O_RDONLY))
            self._numbers[key] = len(self._numbers)
        return self._numbers[key]

    def _read(self, number: int, path: Path) -> bytes:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if number not in self._seen or self._seen[number][0] != stamp:
            descriptor = self._open(path, os.O_RDONLY)
            try:
                self._seen[number] = stamp, os.pread(descriptor, status.st_size, 0)
            finally:
                os.close(descriptor)
        return self._seen[number][1]
