import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import building
import google_crc32c
import numpy as np
import pytest
import zarr

from cpsae.errors import DiskError, NonFiniteError, StoreError
from cpsae.store import StoreWriter, open_store, verify_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest


@pytest.fixture
def writer(tmp_path):
    return building.begin(tmp_path / "acts.zarr", building.manifest())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_chunk_file_is_its_rows_zeros_to_full_size_and_their_crc(finished_stores, dtype):
    path = finished_stores[dtype]
    for part in read_manifest(Folder(path)).parts():
        for chunk in part.chunks():
            rows = building.rows_of(chunk).tobytes()
            full = building.ROWS_A_CHUNK * building.D * (4 if dtype == "float32" else 2)
            padded = rows.ljust(full, b"\0")
            crc = google_crc32c.value(padded).to_bytes(4, "little")
            assert (path / chunk.key).read_bytes() == padded + crc


def test_the_number_of_vectors_is_exact(finished_stores):
    group = zarr.open_group(finished_stores["bfloat16"], mode="r")
    assert group["activations"].shape == (70, 8)
    assert group["evaluation/activations"].shape == (20, 8)
    assert len(list((finished_stores["bfloat16"] / "activations" / "c").iterdir())) == 5


def test_a_chunk_of_zeros_is_written(writer):
    chunk = writer.chunks[0]
    writer.write(chunk, np.zeros((chunk.n_rows, building.D), np.float32))
    assert (writer.bucket.path / chunk.key).stat().st_size == chunk.file_bytes


def test_workers_share_the_chunks_and_their_number_leaves_no_trace(tmp_path, finished_stores):
    begun = building.begin(tmp_path / "acts.zarr", building.manifest())
    workers = [StoreWriter(begun.bucket.path, begun.manifest, rank, 3) for rank in (2, 0, 1)]
    for worker in workers:
        for chunk in worker.missing():
            worker.write(chunk, building.rows_of(chunk))
    assert sorted(c.key for w in workers for c in w.own_chunks) == sorted(
        chunk.key for chunk in begun.chunks
    )
    begun.finish()
    assert building.files_of(begun.bucket.path) == building.files_of(finished_stores["float32"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_chunk_layer_and_context(writer, value):
    chunk = writer.chunks[3]  # the second of the training part, after two held-out ones
    rows = building.rows_of(chunk)
    rows[9, 2] = value
    before = building.files_of(writer.bucket.path)
    with pytest.raises(NonFiniteError) as caught:
        writer.write(chunk, rows)
    text = str(caught.value)
    assert "activations/c/1/0" in text
    assert "layer 19" in text
    assert "row 9" in text
    assert "context 6" in text  # (16 + 9) // 4
    assert "\n" not in text
    assert building.files_of(writer.bucket.path) == before


@pytest.mark.parametrize("shape", [(15, 8), (16, 7), (16,)])
def test_rows_of_another_shape_or_dtype_are_a_mistake_of_the_caller(writer, shape):
    with pytest.raises(ValueError, match="expected float32"):
        writer.write(writer.chunks[0], np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="expected float32"):
        writer.write(writer.chunks[0], np.zeros((16, 8), np.float64))


def test_an_unfilled_store_cannot_be_finished(writer):
    with pytest.raises(StoreError, match="7 chunks are missing"):
        writer.finish()
    assert not read_manifest(Folder(writer.bucket.path)).complete


def test_a_full_disk_keeps_what_is_committed_and_the_rest_continues(writer, monkeypatch):
    first, second, *_ = writer.chunks
    writer.write(first, building.rows_of(first))
    fsync = os.fsync

    def full(descriptor):
        if "activations" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "no space")
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(DiskError, match="disk is full"):
        patch.setattr(os, "fsync", full)
        writer.write(second, building.rows_of(second))
    assert second in writer.missing()
    assert first not in writer.missing()
    assert not list(writer.bucket.path.rglob("*.tmp"))
    for chunk in writer.missing():
        writer.write(chunk, building.rows_of(chunk))
    writer.finish()
    assert not verify_store(writer.bucket.path).problems


def temporary_of(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    leftover = path.with_name(f".{path.name}.4711-abcdef01.tmp")
    leftover.write_bytes(b"half")
    return leftover


def leftovers_in(path):
    keys = ["activations/c/0/0", "statistics/norms/c/1", "zarr.json", "evaluation/tokens/c/0/0"]
    return [temporary_of(path / key) for key in keys]


def test_the_only_worker_removes_leftovers_of_killed_ones(writer):
    leftovers = leftovers_in(writer.bucket.path)
    (writer.bucket.path / "notes.tmp").write_text("of the user")
    writer.tidy()
    assert not any(path.exists() for path in leftovers)
    assert (writer.bucket.path / "notes.tmp").exists()


def test_one_of_several_workers_leaves_what_another_may_be_writing(store):
    manifest = read_manifest(Folder(store))
    leftovers = leftovers_in(store)
    StoreWriter(store, manifest, 1, 2).tidy()
    assert all(path.exists() for path in leftovers)
    StoreWriter(store, manifest, 0, 2).finish()
    assert not any(path.exists() for path in leftovers)


def test_absent_statistics_are_computed_again_to_the_byte(store):
    before = building.files_of(store)
    manifest = read_manifest(Folder(store))
    building.remove(store / "statistics/norms/c/1")
    building.remove(store / "statistics/summary/c/4/0")
    building.remove(store / "evaluation/statistics/norms/c/1")
    StoreWriter(store, manifest).tidy()
    assert building.files_of(store) == before


def test_statistics_are_on_disk_before_their_chunk(writer, monkeypatch):
    written = []
    monkeypatch.setattr(writer.bucket, "write", lambda key, *_pieces: written.append(key))
    chunk = writer.chunks[0]
    writer.write(chunk, building.rows_of(chunk))
    assert written[-1] == chunk.key
    assert written[:-1] == [
        "evaluation/statistics/norms/c/0",
        "evaluation/statistics/summary/c/0/0",
    ]


@pytest.mark.parametrize("key", ["statistics/norms/c/1", "statistics/summary/c/1/0"])
def test_a_store_whose_statistics_are_missing_is_not_complete(store, key):
    manifest = read_manifest(Folder(store)).model_copy(update={"complete": False})
    building.remove(store / key)
    leader = StoreWriter(store, manifest, 0, 2)
    assert [chunk.key for chunk in leader.missing(leader.chunks)] == ["activations/c/1/0"]
    with pytest.raises(StoreError, match="1 chunks are missing"):
        leader.finish()
    for rank in (0, 1):
        StoreWriter(store, manifest, rank, 2).tidy()
    leader.finish()
    assert not verify_store(store).problems


def test_tokens_of_another_shape_are_a_mistake_of_the_caller(tmp_path):
    begun = StoreWriter.create(tmp_path / "acts.zarr", building.manifest())
    tokens = building.tokens_of(begun.manifest)
    with pytest.raises(ValueError, match="expected"):
        begun.write_tokens({**tokens, "training": tokens["training"][:-1]})
    assert not read_manifest(Folder(Path(begun.bucket.name))).tokens_complete


FILL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import building
from cpsae.store import StoreWriter
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest
path = Path(sys.argv[1])
writer = StoreWriter(path, read_manifest(Folder(path)))
print("go", flush=True)
writer.tidy()
for chunk in writer.missing():
    writer.write(chunk, building.rows_of(chunk))
writer.finish()
"""


def test_kill_9_leaves_whole_chunks_and_completion_gives_equal_bytes(tmp_path):
    sizes = {"vectors": 16 * 25, "evaluation_vectors": 16 * 5}
    straight = building.build(tmp_path / "straight.zarr", **sizes)
    killed = building.begin(tmp_path / "killed.zarr", building.manifest(**sizes))
    command = [
        sys.executable,
        "-c",
        FILL,
        str(killed.bucket.path),
        str(Path(building.__file__).parent),
    ]
    expected = building.files_of(straight)
    for delay in (0.0, 0.03, 0.06):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        for name, content in building.files_of(killed.bucket.path).items():
            if not name.endswith(".tmp") and name != "zarr.json":
                assert content == expected[name]
    subprocess.run(command, check=True, capture_output=True)
    assert building.files_of(killed.bucket.path) == expected
    assert open_store(killed.bucket.path).training.vectors == 400
