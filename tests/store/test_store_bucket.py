"""Buckets, what is there in them, and a whole store in one that is no folder."""

import subprocess
import sys
from collections import Counter

import building
import numpy as np
import pytest
from buckets import BucketTests, MemoryBucket

from cpsae.errors import DamagedStoreError, StoreError
from cpsae.store import StoreWriter, open_store
from cpsae.store.bucket import Folder
from cpsae.store.integrity import checked_bytes
from cpsae.store.listing import Listing
from cpsae.store.metadata import read_manifest
from cpsae.store.reader import open_bucket
from cpsae.store.verify import verify_bucket


class TestFolder(BucketTests):
    def bucket(self, tmp_path):
        return Folder(tmp_path / "bucket")

    def again(self, bucket):
        return Folder(bucket.path)


class TestMemory(BucketTests):
    def bucket(self, tmp_path):  # noqa: ARG002
        return MemoryBucket()

    def again(self, bucket):
        return bucket


def fill(bucket):
    writer = StoreWriter.create(bucket, building.manifest())
    writer.write_tokens(building.tokens_of(writer.manifest))
    for chunk in writer.chunks:
        writer.write(chunk, building.rows_of(chunk))
    return writer


def test_a_store_in_memory_is_the_one_in_a_folder(finished_stores):
    bucket = MemoryBucket()
    fill(bucket).finish()
    files = building.files_of(finished_stores["float32"])
    assert {key: content for key, (_, content) in bucket.objects.items()} == files
    store = open_bucket(bucket)
    rows = np.concatenate([store.training.rows(chunk) for chunk in store.training.chunks])
    expected = [building.rows_of(chunk) for chunk in store.training.chunks]
    np.testing.assert_array_equal(rows, np.concatenate(expected))
    assert verify_bucket(bucket).problems == []


def test_what_a_bucket_holds_of_chunks_is_asked_for_once():
    bucket = MemoryBucket()
    writer = fill(bucket)
    bucket.listed = 0
    assert writer.missing(writer.chunks) == []
    assert bucket.listed == 1
    writer.finish()
    bucket.listed = 0
    open_bucket(bucket)
    assert bucket.listed == 2  # chunks, and tokens


@pytest.mark.parametrize("which", ["key", "norms_key", "summary_key"])
def test_a_chunk_is_there_when_all_of_it_is(which):
    bucket = MemoryBucket()
    writer = fill(bucket)
    chunk = writer.chunks[3]
    bucket.remove(getattr(chunk, which))
    listing = Listing(bucket, writer.chunks)
    assert listing.missing() == writer.missing(writer.chunks) == [chunk]
    assert listing.missing_keys(chunk) == [getattr(chunk, which)]
    assert listing.has_rows(chunk) == (which != "key")
    with pytest.raises(StoreError, match="1 chunks are missing"):
        writer.finish()
    assert chunk not in open_bucket(bucket, allow_partial=True).chunks


def test_opening_costs_three_system_calls_a_chunk(tmp_path):
    """Counted by the kernel's own audit of this process: Python's events for opening and the calls
    of os.stat."""
    path = building.build(tmp_path / "a.zarr", vectors=16 * 300)
    code = (
        "import os, sys\n"
        "from cpsae.store import open_store\n"
        "calls = []\n"
        "stat, scandir = os.stat, os.scandir\n"
        "os.stat = lambda *a, **k: calls.append(a) or stat(*a, **k)\n"
        "sys.addaudithook(lambda name, _: calls.append(name) if name in\n"
        "    ('open', 'os.listdir', 'os.scandir') else None)\n"
        "open_store(sys.argv[1])\n"
        "print(len(calls))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fixed = 40  # documents, tokens, the folder itself
    assert 3 * 302 <= int(done.stdout) <= 3 * 302 + fixed


def test_checksums_are_checked_once_unless_the_file_changes(store, monkeypatch):
    checked = Counter()
    monkeypatch.setattr(
        "cpsae.store.part.checked_bytes",
        lambda bucket, key: checked.update([key]) or checked_bytes(bucket, key),
    )
    part = open_store(store).training
    for _ in range(3):
        for chunk in part.chunks:
            part.rows(chunk)
            part.norms(chunk)
    assert set(checked.values()) == {1}
    assert len(checked) == 2 * len(part.chunks)
    building.flip_bit(store / part.chunks[2].key)
    with pytest.raises(DamagedStoreError, match="activations/c/2/0: corrupt"):
        part.rows(part.chunks[2])
    part.rows(part.chunks[1])
    assert checked[part.chunks[1].key] == 1


def test_the_manifest_is_read_through_the_bucket(finished_stores):
    assert read_manifest(Folder(finished_stores["float32"])).vectors == 70
