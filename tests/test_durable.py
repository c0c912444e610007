import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpsae.durable import LOCK_NAME, temporary_target, write_atomic
from cpsae.errors import BusyError, DiskError
from cpsae.locks import set_aside, writer_lock

HOLD = """
import sys, time
from pathlib import Path
from cpsae.locks import writer_lock
with writer_lock(Path(sys.argv[1]), "store"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path / acts.zarr."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "acts.zarr")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "held"
    yield process
    process.kill()
    process.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_pieces_are_joined_and_missing_folders_made(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "file", b"one", b"", b"two")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"onetwo"
    assert names(tmp_path) == ["a", "a/b", "a/b/file"]


def test_a_file_is_replaced_whole(tmp_path):
    write_atomic(tmp_path / "file", b"a longer old text")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_file_is_on_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor):
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomic(tmp_path / "file", b"x")
    assert events[0].startswith(".file.")
    assert events[1:] == ["rename", tmp_path.name]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EROFS, "cannot be written"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_a_refusing_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, code, text):
    write_atomic(tmp_path / "file", b"old")

    def refuse(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=text) as caught:
        write_atomic(tmp_path / "file", b"new")
    assert str(tmp_path / "file") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(DiskError, match="in the way"):
        write_atomic(tmp_path / "a" / "file", b"x")


def test_an_interrupt_leaves_no_temporary(tmp_path, monkeypatch):
    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"x")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".0.123-abcd.tmp", "0"),
        (".zarr.json.123-abcd.tmp", "zarr.json"),
        ("zarr.json", None),
        (".lock", None),
        ("notes.tmp", None),
    ],
)
def test_temporaries_know_their_target(name, target):
    assert temporary_target(Path(name)) == target


def test_a_held_lock_is_busy_and_names_its_holder(tmp_path, holder):
    folder = tmp_path / "acts.zarr"
    with pytest.raises(BusyError, match=rf"pid {holder.pid}\) is writing this store"):
        writer_lock(folder, "store").__enter__()
    with pytest.raises(BusyError):
        set_aside(folder, "store")
    assert folder.is_dir()


def test_the_lock_is_free_after_kill_9(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    folder = tmp_path / "acts.zarr"
    with writer_lock(folder, "store"):
        assert (folder / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    assert names(tmp_path) == ["acts.zarr"]  # which the killed process had made


def test_a_lock_in_the_same_process_is_busy_too(tmp_path):
    with writer_lock(tmp_path, "run"), pytest.raises(BusyError, match="this run"):
        writer_lock(tmp_path, "run").__enter__()


def test_a_failed_attempt_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), writer_lock(tmp_path / "a" / "b", "store"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_was_written_under_the_lock_stays(tmp_path):
    with writer_lock(tmp_path / "a" / "b", "store"):
        write_atomic(tmp_path / "a" / "b" / "file", b"x")
    assert names(tmp_path) == ["a", "a/b", "a/b/file"]


def test_a_lock_file_removed_while_we_waited_for_it_is_tried_again(tmp_path, monkeypatch):
    import fcntl

    (tmp_path / LOCK_NAME).touch()
    flock = fcntl.flock

    def removed_just_before(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / LOCK_NAME).unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_just_before)
    with writer_lock(tmp_path, "store"), pytest.raises(BusyError):
        writer_lock(tmp_path, "store").__enter__()


def test_a_read_only_folder_is_one_line(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DiskError, match="read-only"):
        writer_lock(tmp_path, "store").__enter__()


def test_set_aside_takes_the_first_free_name(tmp_path):
    for number in (1, 2):
        write_atomic(tmp_path / "acts.zarr" / "file", str(number).encode())
        assert set_aside(tmp_path / "acts.zarr", "store") == tmp_path / f"acts.zarr.old-{number}"
    assert names(tmp_path) == [
        "acts.zarr.old-1",
        "acts.zarr.old-1/file",
        "acts.zarr.old-2",
        "acts.zarr.old-2/file",
    ]


WRITE = """
import sys
from pathlib import Path
from cpsae.durable import write_atomic
print("go", flush=True)
for number in range(10**6):
    write_atomic(Path(sys.argv[1]) / str(number % 50), str(number % 10).encode() * 300_000)
"""


def test_kill_9_at_any_moment_leaves_whole_files(tmp_path):
    for delay in (0.02, 0.07, 0.13):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        for path in tmp_path.iterdir():
            if temporary_target(path) is None:
                content = path.read_bytes()
                assert len(content) == 300_000
                assert len(set(content)) == 1


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_folder_that_cannot_be_synced_counts_as_done(tmp_path, monkeypatch, code):
    fsync = os.fsync

    def of_files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    write_atomic(tmp_path / "new/a", b"1")
    assert (tmp_path / "new/a").read_bytes() == b"1"


def test_a_folder_whose_disk_fails_is_an_error(tmp_path, monkeypatch):
    def fails(_descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(DiskError, match="cannot be written"):
        write_atomic(tmp_path / "a", b"1")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, code):
    def unknown(_descriptor, _operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unknown)
    heard = []
    with writer_lock(tmp_path / "run", "run", heard.append):
        (tmp_path / "run/a").write_text("1")
    assert [event.kind for event in heard] == ["warning"]
    assert str(tmp_path / "run/.lock") in heard[0].text
    assert "-o flock" in heard[0].text and "\n" not in heard[0].text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]


@pytest.mark.parametrize("exists", [True, False])
def test_of_a_link_the_target_is_written_locked_and_set_aside(tmp_path, exists):
    target, link = tmp_path / "large/acts", tmp_path / "link"
    link.symlink_to(target)
    if exists:
        target.mkdir(parents=True)
    with writer_lock(link, "store"):
        assert (target / ".lock").exists()
        write_atomic(link / "a", b"1")
    assert (target / "a").read_bytes() == b"1"
    assert set_aside(link, "store") == target.with_name("acts.old-1")
    assert link.is_symlink() and not target.exists()
    write_atomic(link / "a", b"2")
    assert (target / "a").read_bytes() == b"2"
    assert (tmp_path / "large/acts.old-1/a").read_bytes() == b"1"


def test_a_temporary_that_another_writer_took_for_a_leftover_is_no_loss(tmp_path, monkeypatch):
    """Both write the same bytes: the one that finds its work done is done."""
    replace = Path.replace

    def overtaken(temporary, target):
        target.write_bytes(b"1")
        temporary.unlink()
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    write_atomic(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
