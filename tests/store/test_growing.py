"""Waiting for what is not there yet, and ways in which waiting ends."""

import threading

import pytest
from buckets import MemoryBucket

from cpsae.errors import StoreError
from cpsae.locks import is_locked, writer_lock
from cpsae.store import growing
from cpsae.store.bucket import Folder
from cpsae.store.growing import GrowingBucket, StoppedWaiting


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(growing, "LOOK_SECONDS", 0.01)


def in_a_moment(work):
    timer = threading.Timer(0.05, work)
    timer.start()
    return timer


@pytest.mark.parametrize("how", ["read", "stamp"])
def test_an_object_is_waited_for(tmp_path, how):
    folder = Folder(tmp_path)
    bucket = GrowingBucket(folder)
    in_a_moment(lambda: folder.write("a/0", b"rows")).join(0)
    found = getattr(bucket, how)("a/0")
    assert bytes(found) == b"rows" if how == "read" else found == folder.stamp("a/0")


def test_what_is_there_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _s: pytest.fail("it is there"))
    folder = Folder(tmp_path)
    folder.write("a", b"1")
    assert bytes(GrowingBucket(folder).read("a")) == b"1"


def test_who_is_asked_to_stop_does():
    stop = threading.Event()
    bucket = GrowingBucket(MemoryBucket(), stop.is_set)
    in_a_moment(stop.set)
    with pytest.raises(StoppedWaiting):
        bucket.read("a")


def test_waits_that_have_begun_can_be_ended_and_later_ones_go_on():
    empty = MemoryBucket()
    bucket = GrowingBucket(empty)
    in_a_moment(bucket.stop_waiting)
    with pytest.raises(StoppedWaiting):
        bucket.read("a")
    in_a_moment(lambda: empty.write("a", b"1"))
    assert bytes(bucket.read("a")) == b"1"


def test_a_writer_that_has_gone_is_an_error(monkeypatch):
    monkeypatch.setattr(growing, "GIVE_UP_SECONDS", 0.03)
    with pytest.raises(StoreError, match=r": a/7 has not come .* run `cpsae extract`"):
        GrowingBucket(MemoryBucket()).read("a/7")


def test_a_slow_writer_is_none(monkeypatch):
    monkeypatch.setattr(growing, "GIVE_UP_SECONDS", 0.03)
    empty = MemoryBucket()
    empty.busy = True
    threading.Timer(0.2, lambda: empty.write("a", b"1")).start()
    assert bytes(GrowingBucket(empty).read("a")) == b"1"


def test_a_long_wait_is_told_once(monkeypatch):
    monkeypatch.setattr(growing, "PATIENCE_SECONDS", 0.02)
    told = []
    empty = MemoryBucket()
    bucket = GrowingBucket(empty, on_event=told.append)
    for key in "ab":
        threading.Timer(0.1, lambda key=key: empty.write(key, b"1")).start()
        bucket.read(key)
    assert [note.kind for note in told] == ["warning"] and "waiting for a;" in told[0].text


def test_a_lock_is_seen_while_it_is_held(tmp_path):
    assert not is_locked(tmp_path)
    with writer_lock(tmp_path, "store"):
        assert is_locked(tmp_path) and Folder(tmp_path).locked()
    assert not is_locked(tmp_path)
    (tmp_path / ".lock").touch()
    assert not is_locked(tmp_path)
