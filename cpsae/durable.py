"""How bytes reach the disk: whole or not at all, by one writer at a time."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cpsae.errors import BusyError, CpsaeError, DiskError, PlatformError
from cpsae.events import Note, OnEvent, ignore

try:
    import fcntl
except ImportError:  # not POSIX: stores and runs can be read there
    fcntl = None  # type: ignore[assignment]

TEMPORARY_SUFFIX = ".tmp"
LOCK_NAME = ".lock"

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""What file systems answer that cannot sync a folder (CIFS, shared folders, some FUSE)."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""What file systems answer that know no flock (Lustre without its option, NFS without a daemon)."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_atomic(path: Path, *buffers: Any) -> None:
    """Write the concatenated buffers (anything with the buffer protocol) as the file `path`, as
    `write_stream` does."""
    write_stream(path, buffers)


def write_stream(path: Path, buffers: Iterable[Any]) -> None:
    """Write buffers (anything with the buffer protocol), each as it is made, as the file `path`.

    Temporary name in the same folder, fsync, rename, fsync of the folder: after a crash at any
    moment `path` is either absent (or its old self) or whole. Missing folders are made.
    Raises DiskError where the disk is full or may not be written; no half of a file is left then.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    with disk_errors(path):
        make_folders(path.parent)
        try:
            with temporary.open("wb") as file:
                for buffer in buffers:
                    file.write(buffer)
                file.flush()
                os.fsync(file.fileno())
            _take_place(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def _take_place(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except FileNotFoundError:
        # Another writer made the same file meanwhile, and removed what it took for a leftover.
        if temporary.exists() or not path.exists():
            raise


def local_folder(path: str | os.PathLike[str], what: str, error: type[CpsaeError]) -> Path:
    """`path` as a path on this machine, `~` expanded. Raises `error` for a URL, which would become
    a folder of that name: one line."""
    path = os.fspath(path)
    if _URL.match(path):
        raise error(f"{what} {path}: expected a local folder; write there, then copy it")
    return Path(path).expanduser()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskError(
                f"{path}: the disk is full; what is committed stays: free some space and run the "
                "same command again"
            ) from None
        if error.errno in _FORBIDDEN:
            raise DiskError(
                f"{path}: cannot be written ({error.strerror}); check the folder's permissions "
                "and that its disk is not read-only"
            ) from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise DiskError(f"{path}: a file is in the way of a folder; move it aside") from None
        raise DiskError(f"{path}: cannot be written ({error.strerror}); check the disk") from None


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, which is replaced whole when it changes; a durable
    copy where the file system has no links. Raises OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _FULL:
            raise
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())


def make_folders(folder: Path) -> None:
    """Make `folder` and its missing parents, each made durable by an fsync of its own parent."""
    if folder.is_dir():
        return
    if folder.is_symlink():  # a link to what is not there yet: its target is made
        make_folders(folder.resolve())
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, on a file system that can."""
    if fcntl is None:  # where there is no POSIX, a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def temporary_target(path: Path) -> str | None:
    """The final name that a leftover temporary file was meant for; None for any other file."""
    if not (path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)):
        return None
    return path.name[1:].removesuffix(TEMPORARY_SUFFIX).rpartition(".")[0]


def is_leftover(path: Path) -> bool:
    """Whether a killed writer may have left this behind where there is nothing else."""
    return path.name == LOCK_NAME or temporary_target(path) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed writers below `folder`, while nobody writes there."""
    for path in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_file() and temporary_target(path) is not None:
            path.unlink(missing_ok=True)


@contextmanager
def writer_lock(folder: Path, what: str, on_event: OnEvent = ignore) -> Iterator[None]:
    """Be the one writer of `folder` (made if absent) until the block ends.

    The kernel frees the lock when the process dies, however it dies. On the way out the lock file
    is removed, and so are the folders made here if nothing else was put into them.
    On a file system without locks there is a warning instead. Raises BusyError where another
    process holds it, PlatformError where the system has no such locks; `what` ("store", "run") is
    for their texts.
    """
    if fcntl is None:
        raise PlatformError(
            f"{folder}: writing a {what} needs a POSIX system with fcntl locks, like Linux or "
            "macOS; this system can only read: write there, then copy it here"
        )
    folder = folder.resolve()  # a link stays one, whatever becomes of what it leads to
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / LOCK_NAME
    descriptor = _take(path, what, on_event)
    try:
        with suppress(OSError):  # a full disk: the lock holds without the number in it
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            if _names(path, descriptor):  # not so where the folder was renamed meanwhile
                path.unlink(missing_ok=True)
            for parent in made:
                with suppress(OSError):  # not empty: something was written, so it stays
                    parent.rmdir()
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether another process on this machine is the writer of `folder`; one on another machine
    is seen only where the file system shares locks."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(folder.resolve() / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _take(path: Path, what: str, on_event: OnEvent) -> int:
    """A descriptor of the lock file `path` (made if absent) that holds its lock."""
    while True:
        with disk_errors(path.parent):
            make_folders(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _names(path, descriptor):
                    return descriptor
            except BlockingIOError:
                raise _busy(path.parent, descriptor, what) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(descriptor)
                    raise
                on_event(Note(_unlocked(path, what, error), "warning"))
                return descriptor
            # Its last holder removed it between our open and our flock: try again with a new one.
            os.close(descriptor)


def _unlocked(path: Path, what: str, error: OSError) -> str:
    return (
        f"{path}: this file system knows no locks ({error.strerror}), so nothing keeps a second "
        f"process from writing this {what}: see to it that there is none, or mount the file system "
        "with locks (Lustre: -o flock; NFS: a running lock daemon)"
    )


def _names(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _busy(folder: Path, descriptor: int, what: str) -> BusyError:
    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    os.close(descriptor)
    return BusyError(
        f"{folder}: another process{f' (pid {holder})' if holder else ''} is writing this "
        f"{what}; wait until it ends or stop it, then run the same command again"
    )


def is_aside(folder: Path) -> bool:
    """Whether `set_aside` gave a folder its name."""
    return re.search(r"\.old-\d+$", folder.name) is not None


def set_aside(folder: Path, what: str) -> Path:
    """Rename `folder` to the first free `<name>.old-N` and return the new path. Of a link, what it
    leads to is renamed, and the link stays.

    Raises BusyError where another process is writing it.
    """
    folder = folder.resolve()
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    with writer_lock(folder, what), disk_errors(folder):
        folder.rename(aside)
        fsync_folder(folder.parent)
    (aside / LOCK_NAME).unlink(missing_ok=True)
    return aside
