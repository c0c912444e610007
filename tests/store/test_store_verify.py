import json

import building
import numpy as np
import pytest
from numcodecs import Zstd

from cpsae.errors import DamagedStoreError, StoreError
from cpsae.events import Advanced, Finished, Started
from cpsae.store import open_store, verify_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest
from cpsae.store.repair import remove_damaged
from cpsae.store.writer import StoreWriter

ROWS_TOO_MANY = 2**21 * building.ROWS_A_CHUNK


def found(path):
    return {problem.key: problem.what for problem in verify_store(path).problems}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_whole_store_has_no_problem_and_every_file_is_read(finished_stores, dtype):
    seen = []
    path = finished_stores[dtype]
    verification = verify_store(path, seen.append)
    assert verification.complete
    assert verification.problems == []
    assert verification.absent == []
    assert verification.files == len(building.files_of(path))
    assert seen[0] == Started("verify", 7, "chunk", kept=False)
    assert seen[1:] == [*(Advanced(number) for number in range(1, 8)), Finished()]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (building.remove, "missing"),
        (building.truncate, "bytes long, expected"),
        (building.empty, "bytes long, expected"),
        (building.flip_bit, "checksum"),
    ],
)
@pytest.mark.parametrize(
    "key",
    [
        "activations/c/1/0",
        "evaluation/activations/c/1/0",
        "statistics/norms/c/2",
        "statistics/summary/c/0/0",
        "evaluation/statistics/summary/c/1/0",
    ],
)
def test_every_damage_is_named_by_its_path_in_the_store(store, damage, text, key):
    damage(store / key)
    problems = found(store)
    assert list(problems) == [key]
    assert text in problems[key]


@pytest.mark.parametrize("damage", [building.remove, building.truncate, building.flip_bit])
def test_damaged_tokens(store, damage):
    damage(store / "tokens/c/0/0")
    assert list(found(store)) == ["tokens/c/0/0"]


BOMB = bytes.fromhex("28b52ffde0") + (2**40).to_bytes(8, "little") + bytes(40)
"""A frame of zstd that says it holds a terabyte."""


@pytest.mark.parametrize(
    "content",
    [b"\xff" * 4, BOMB, bytes(Zstd().encode(np.ones(7, "<i4"))), bytes(Zstd().encode(b""))],
    ids=["nothing", "a terabyte", "few", "none"],
)
def test_what_holds_no_tokens_under_a_right_checksum(store, content):
    building.foreign(store / "tokens/c/0/0", np.frombuffer(content, np.uint8))
    assert found(store) == {"tokens/c/0/0": "corrupt: it holds no tokens"}
    with pytest.raises(DamagedStoreError, match="tokens/c/0/0: corrupt"):
        open_store(store).training.tokens(range(2))


def test_damage_is_collected_and_not_the_first_one_alone(store):
    building.flip_bit(store / "activations/c/0/0")
    building.remove(store / "activations/c/3/0")
    building.truncate(store / "statistics/summary/c/2/0")
    assert list(found(store)) == [
        "activations/c/0/0",
        "statistics/summary/c/2/0",
        "activations/c/3/0",
    ]


def test_rows_that_are_not_finite_under_a_right_checksum(store):
    rows = np.ones((16, 8), np.float32)
    rows[3, 3] = np.nan
    building.foreign(store / "activations/c/1/0", rows)
    assert found(store) == {"activations/c/1/0": "1 rows hold NaN or Inf"}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("statistics/norms/c/1", np.ones(16, np.float32)),
        ("statistics/summary/c/1/0", np.ones(10)),
    ],
)
def test_statistics_of_other_rows_under_a_right_checksum(store, key, values):
    building.foreign(store / key, values)
    assert found(store) == {key: "not what the rows of its chunk give"}


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"zarr_format": 3}'])
@pytest.mark.parametrize(
    "key", ["activations/zarr.json", "evaluation/statistics/zarr.json", "tokens/zarr.json"]
)
def test_documents_of_arrays_and_groups(store, key, content):
    if content is None:
        building.remove(store / key)
    else:
        (store / key).write_bytes(content)
    assert list(found(store)) == [key]


def test_a_document_that_another_writer_worded_is_well(store):
    document = json.loads((store / "activations/zarr.json").read_text())
    del document["storage_transformers"]
    document["attributes"] = {"note": "mine"}
    (store / "activations/zarr.json").write_text(json.dumps(document, indent=7))
    assert found(store) == {}


@pytest.mark.parametrize(
    ("field", "value"), [("shape", [71, 8]), ("data_type", "int32"), ("codecs", [])]
)
def test_a_document_that_says_something_else(store, field, value):
    document = json.loads((store / "activations/zarr.json").read_text())
    (store / "activations/zarr.json").write_text(json.dumps({**document, field: value}))
    assert found(store) == {"activations/zarr.json": "does not describe what the manifest says"}


def test_what_an_unfinished_store_lacks_is_absent_and_no_problem(tmp_path):
    writer = building.begin(tmp_path / "acts.zarr", building.manifest())
    writer.write(writer.chunks[0], building.rows_of(writer.chunks[0]))
    verification = verify_store(writer.bucket.path)
    assert not verification.complete
    assert verification.problems == []
    assert verification.absent == [chunk.key for chunk in writer.chunks[1:]]
    assert verification.files == len(building.files_of(writer.bucket.path))


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        verify_store(tmp_path / "nothing")


def test_repair_removes_damaged_chunks_and_completion_gives_equal_bytes(store, finished_stores):
    building.flip_bit(store / "activations/c/1/0")
    building.remove(store / "activations/c/3/0")
    removed = remove_damaged(store, list(found(store)))
    assert removed == ["activations/c/1/0"]
    assert not (store / "activations/c/1/0").exists()
    assert verify_store(store).absent == ["activations/c/1/0", "activations/c/3/0"]
    writer = StoreWriter(store, read_manifest(Folder(store)))
    assert not writer.manifest.complete
    for chunk in writer.missing():
        writer.write(chunk, building.rows_of(chunk))
    writer.finish()
    assert building.files_of(store) == building.files_of(finished_stores["float32"])


def test_repair_makes_statistics_and_documents_again_at_once(store, finished_stores):
    building.flip_bit(store / "statistics/norms/c/1")
    building.remove(store / "evaluation/statistics/summary/c/0/0")
    building.empty(store / "activations/zarr.json")
    building.remove(store / "statistics/zarr.json")
    remove_damaged(store, list(found(store)))
    assert building.files_of(store) == building.files_of(finished_stores["float32"])
    open_store(store)


@pytest.mark.parametrize("origin", ["extract", "arrays"])
def test_repair_touches_nothing_where_something_cannot_be_made_again(tmp_path, origin):
    store = building.build(tmp_path / "acts.zarr", origin=origin)
    lost = "tokens/c/0/0" if origin == "extract" else "activations/c/0/0"
    building.flip_bit(store / lost)
    building.flip_bit(store / "statistics/norms/c/1")
    before = building.files_of(store)
    with pytest.raises(StoreError, match=rf"{lost} cannot be computed again"):
        remove_damaged(store, list(found(store)))
    assert building.files_of(store) == before


def test_repair_of_no_store_makes_no_folder(tmp_path):
    with pytest.raises(StoreError):
        remove_damaged(tmp_path / "nothing", ["activations/c/0/0"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("d", 7), ("rows_per_chunk", 5), ("store_dtype", "float16"), ("vectors", 60)],
)
def test_a_wrong_manifest_costs_no_chunk(store, field, value):
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["cpsae"][field] = value
    (store / "zarr.json").write_text(json.dumps(root))
    before = building.files_of(store)
    keys = [problem.key for problem in verify_store(store).problems]
    with pytest.raises(StoreError, match="contradict each other, so nothing is removed"):
        remove_damaged(store, keys)
    assert building.files_of(store) == before


def claim(store, **changes):
    path = store / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["cpsae"].update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("vectors", [10**15, 2**63, 10**30])
def test_more_chunks_than_any_store_has_are_not_looked_for(store, vectors):
    claim(store, vectors=vectors)
    for call in (verify_store, open_store):
        with pytest.raises(StoreError, match=f"says that it has .* {vectors:,} vectors") as raised:
            call(store)
        assert "\n" not in str(raised.value)


def test_rows_that_documents_differ_on_are_said_alone(store):
    claim(store, vectors=10**6)
    problems = found(store)
    assert set(problems.values()) == {"does not describe what the manifest says"}
    assert "activations/zarr.json" in problems
    with pytest.raises(DamagedStoreError, match="does not describe what the manifest says"):
        open_store(store)


def test_no_store_is_begun_with_too_many_chunks(tmp_path):
    with pytest.raises(StoreError, match="at most 2,097,152 chunks"):
        StoreWriter.create(tmp_path / "acts.zarr", building.manifest(vectors=ROWS_TOO_MANY))
    assert not (tmp_path / "acts.zarr").exists()
