"""How bytes reach the disk: whole or not at all."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cpsae.errors import CpsaeError, DiskError
from cpsae.urls import is_url, redacted

try:
    import fcntl
except ImportError:  # not POSIX: stores and runs can be read there
    fcntl = None  # type: ignore[assignment]

TEMPORARY_SUFFIX = ".tmp"
LOCK_NAME = ".lock"
FELLOWS_NAME = ".workers"
"""Held together by the workers that do not lead."""

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""What file systems answer that cannot sync a folder (CIFS, shared folders, some FUSE)."""

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
    if is_url(path):
        raise error(f"{what} {redacted(path)}: expected a local folder; write there, then copy it")
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
    return path.name in (LOCK_NAME, FELLOWS_NAME) or temporary_target(path) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed writers below `folder`, while nobody writes there."""
    for path in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_file() and temporary_target(path) is not None:
            path.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Take over from killed writers, while nobody writes below `folder`: remove their temporary
    files, and make durable what they named last and were killed before they could sync. What is
    seen may else be taken for done, and be gone after a power cut."""
    remove_leftovers(folder)
    with disk_errors(folder):
        for inside, _, _ in os.walk(folder):
            fsync_folder(Path(inside))
    sync_name(folder)


def sync_name(folder: Path) -> None:
    """Make durable that `folder` is there, and the names in it, as far as this user may open the
    folders above: another writer, which is gone, may have made any of them."""
    folder = folder.resolve()
    device = folder.stat().st_dev
    for one in (folder, *folder.parents):
        with suppress(OSError):
            if one.stat().st_dev == device:
                fsync_folder(one)


def is_aside(folder: Path) -> bool:
    """Whether `set_aside` gave a folder its name."""
    return re.search(r"\.old-\d+$", folder.name) is not None
