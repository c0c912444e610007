"""Who writes a store or a run: one process, or several that were started together."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cpsae.durable import FELLOWS_NAME, LOCK_NAME, disk_errors, fsync_folder, make_folders
from cpsae.errors import BusyError, PlatformError
from cpsae.events import Note, OnEvent, ignore

try:
    import fcntl
except ImportError:  # not POSIX: stores and runs can be read there
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""What file systems answer that know no flock (Lustre without its option, NFS without a daemon)."""


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


@contextmanager
def fellow_lock(folder: Path) -> Iterator[None]:
    """Be seen to write in `folder`, as one of any number of processes beside its one writer, until
    the block ends; the kernel ends it with the process. Nothing, where there are no locks."""
    descriptor = None
    with suppress(OSError):  # what is not seen is waited for a little longer, no more
        descriptor = os.open(folder / FELLOWS_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_fellow_lock(folder: Path) -> None:
    """When all is done."""
    (folder / FELLOWS_NAME).unlink(missing_ok=True)


def is_gone(folder: Path, fellows: bool = False) -> bool:
    """Whether nobody can be writing `folder`, as its one writer or, with `fellows`, beside it.
    False where that cannot be known: on a file system without locks."""
    try:
        path = folder.resolve() / (FELLOWS_NAME if fellows else LOCK_NAME)
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


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
