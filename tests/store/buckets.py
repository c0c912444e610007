"""What every bucket promises, as a class of tests to inherit from, and a bucket in memory."""

from contextlib import contextmanager

import numpy as np
import pytest

from cpsae.errors import BusyError
from cpsae.events import ignore


class BucketTests:
    """Inherit, and give `bucket`, an empty one, and `again`, another view of the same place."""

    def bucket(self, tmp_path):
        raise NotImplementedError

    def again(self, bucket):
        raise NotImplementedError

    @pytest.fixture
    def empty(self, tmp_path):
        return self.bucket(tmp_path)

    def test_an_object_is_its_pieces_one_after_another(self, empty):
        empty.write("a/b/c", b"one", np.arange(3, dtype=np.uint8), b"")
        assert self.again(empty).read("a/b/c").tobytes() == b"one\0\1\2"

    def test_what_is_read_cannot_be_written(self, empty):
        empty.write("a", b"content")
        with pytest.raises(ValueError, match="read-only"):
            empty.read("a")[0] = 1

    def test_an_empty_object(self, empty):
        empty.write("a", b"")
        assert empty.read("a").tobytes() == b""
        assert empty.sizes(["a"]) == {"a": 0}

    def test_sizes_are_of_what_is_there(self, empty):
        empty.write("a/0", b"123")
        empty.write("b", b"12345")
        assert empty.sizes(["a/0", "a/1", "b", "c/d", "b/x"]) == {"a/0": 3, "b": 5}
        assert empty.sizes([]) == {}

    def test_writing_again_replaces_whole_and_changes_the_stamp(self, empty):
        empty.write("a", b"first, and longer")
        before, mapped = empty.stamp("a"), empty.read("a")
        assert self.again(empty).stamp("a") == before
        empty.write("a", b"second")
        assert empty.read("a").tobytes() == b"second"
        assert empty.stamp("a") != before
        assert mapped.tobytes() == b"first, and longer"

    def test_removing(self, empty):
        empty.write("a/b", b"1")
        empty.remove("a/b")
        empty.remove("a/b")
        empty.remove("never/there")
        assert empty.sizes(["a/b"]) == {}
        for look in (empty.read, empty.stamp):
            with pytest.raises(FileNotFoundError):
                look("a/b")

    def test_tidying_leaves_what_is_whole(self, empty):
        empty.write("a", b"1")
        empty.tidy()
        assert empty.read("a").tobytes() == b"1"

    def test_a_lock_is_seen(self, empty):
        assert not empty.locked()
        with empty.lock("store"):
            assert empty.locked()
        assert not empty.locked()

    def test_one_writer_at_a_time(self, empty):
        with empty.lock("store"):
            with (
                pytest.raises(BusyError, match="is writing this store"),
                self.again(empty).lock("store"),
            ):
                pytest.fail("two writers")
            empty.write("a", b"1")
        with self.again(empty).lock("store"):
            pass
        assert empty.sizes(["a"]) == {"a": 1}


class MemoryBucket:
    """Objects in a dictionary; counts how often it is listed."""

    def __init__(self):
        self.name = "memory"
        self.objects = {}
        self.listed = 0
        self.busy = False

    def forget(self, key):  # noqa: ARG002
        return False

    def prefetch(self, keys):
        pass

    def sizes(self, keys):
        self.listed += 1
        return {key: len(self.objects[key][1]) for key in keys if key in self.objects}

    def read(self, key):
        if key not in self.objects:
            raise FileNotFoundError(key)
        return np.frombuffer(self.objects[key][1], np.uint8)

    def stamp(self, key):
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][0]

    def write(self, key, *pieces):
        content = b"".join(bytes(memoryview(piece).cast("B")) for piece in pieces)
        self.objects[key] = (object(), content)

    def remove(self, key):
        self.objects.pop(key, None)

    def tidy(self):
        pass

    @contextmanager
    def lock(self, what, on_event=ignore):  # noqa: ARG002
        if self.busy:
            raise BusyError(f"{self.name}: another process is writing this {what}")
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def locked(self):
        return self.busy
