import json

import building
import ml_dtypes
import numpy as np
import pytest
import tensorstore
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cpsae.errors import DamagedStoreError, StoreError
from cpsae.store import open_store
from cpsae.store import part as store_part

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}


def bits(values):
    return np.asarray(values).view(f"u{np.asarray(values).dtype.itemsize}")


def expected_rows(part):
    return np.concatenate([building.rows_of(chunk) for chunk in part.chunks])


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("prefix", ["", "evaluation/"])
def test_memmap_zarr_tensorstore_and_the_store_read_equal_bits(finished_stores, dtype, prefix):
    path = finished_stores[dtype]
    store = open_store(path)
    part = store.evaluation if prefix else store.training
    expected = bits(expected_rows(part))

    ours = np.concatenate([part.rows(chunk) for chunk in part.chunks])
    np.testing.assert_array_equal(bits(ours), expected)

    mapped = [
        np.memmap(path / chunk.key, DTYPES[dtype], "r", 0, (building.ROWS_A_CHUNK, building.D))
        for chunk in part.chunks
    ]
    np.testing.assert_array_equal(bits(np.concatenate(mapped)[: part.vectors]), expected)

    by_zarr = zarr.open_group(path, mode="r")[f"{prefix}activations"][:]
    np.testing.assert_array_equal(bits(by_zarr), expected)

    driver = {"driver": "file", "path": str(path / prefix / "activations")}
    by_tensorstore = tensorstore.open({"driver": "zarr3", "kvstore": driver}, read=True).result()
    np.testing.assert_array_equal(bits(by_tensorstore.read().result()), expected)


def test_rows_are_mapped_and_cannot_be_written(finished_stores):
    part = open_store(finished_stores["bfloat16"]).training
    rows = part.rows(part.chunks[-1])
    assert rows.shape == (6, 8)
    base = rows
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1


def test_torch_takes_the_bits_of_bfloat16(finished_stores):
    part = open_store(finished_stores["bfloat16"]).training
    rows = part.rows(part.chunks[0])
    tensor = torch.from_numpy(rows.view(np.int16).copy()).view(torch.bfloat16)
    np.testing.assert_array_equal(tensor.float().numpy(), rows.astype(np.float32))


def test_statistics_are_those_of_all_rows(finished_stores):
    for dtype in DTYPES:
        part = open_store(finished_stores[dtype]).training
        rows = expected_rows(part).astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        assert part.vectors == 70
        np.testing.assert_allclose(part.median_norm, np.median(norms), rtol=1e-6)
        np.testing.assert_allclose(part.largest_norm, norms.max())
        np.testing.assert_allclose(part.mean, rows.mean(axis=0))
        np.testing.assert_allclose(part.mean_squared_norm, (norms**2).mean())
        np.testing.assert_allclose(np.concatenate([part.norms(c) for c in part.chunks]), norms)


def test_zarr_reads_the_same_statistics(finished_stores):
    group = zarr.open_group(finished_stores["float32"], mode="r")
    part = open_store(finished_stores["float32"]).training
    for chunk in part.chunks:
        np.testing.assert_array_equal(
            group["statistics/summary"][chunk.index], part.summary(chunk).as_row()
        )
    assert group["statistics/norms"].shape == (70,)


def test_tokens_and_where_a_row_comes_from(finished_stores):
    part = open_store(finished_stores["float32"]).training
    expected = building.tokens_of(building.manifest())["training"]
    np.testing.assert_array_equal(part.tokens(range(18)), expected)
    np.testing.assert_array_equal(part.tokens(range(3, 7)), expected[3:7])
    assert part.tokens(range(0)).shape == (0, 5)
    assert part.origin(0) == (0, 1)  # position 0 is dropped
    assert part.origin(69) == (17, 2)
    by_zarr = zarr.open_group(finished_stores["float32"], mode="r")["tokens"][:]
    np.testing.assert_array_equal(by_zarr, expected)


def test_a_block_of_tokens_is_decompressed_once(finished_stores, monkeypatch):
    part = open_store(finished_stores["float32"]).training
    decompressed = []
    checked_tokens = store_part.checked_tokens  # type: ignore[attr-defined]

    def counted(bucket, key, spec):
        decompressed.append(key)
        return checked_tokens(bucket, key, spec)

    monkeypatch.setattr(store_part, "checked_tokens", counted)
    parts = [part.tokens(range(first, first + 3)) for first in range(0, 18, 3)]
    assert decompressed == ["tokens/c/0/0"]
    np.testing.assert_array_equal(
        np.concatenate(parts), building.tokens_of(building.manifest())["training"]
    )


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 100))
def test_batches_are_all_rows_in_order(finished_stores, size):
    part = open_store(finished_stores["float32"]).training
    batches = list(part.batches(size))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert 0 < len(batches[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(batches), expected_rows(part))


def test_a_batch_of_no_rows_is_refused(finished_stores):
    with pytest.raises(ValueError, match="0 rows"):
        next(open_store(finished_stores["float32"]).training.batches(0))


def test_identity_is_of_the_recipe_and_not_of_place_or_progress(store, finished_stores, tmp_path):
    assert open_store(store).identity == open_store(finished_stores["float32"]).identity
    begun = building.begin(tmp_path / "begun.zarr", building.manifest())
    assert open_store(begun.bucket.path, allow_partial=True).identity == open_store(store).identity
    other = building.build(tmp_path / "other.zarr", identity={"layer": 19, "seed": 1})
    assert open_store(other).identity != open_store(store).identity


def test_only_sees_the_chunks_it_is_told(finished_stores):
    store = open_store(finished_stores["float32"])
    seen = store.only(["activations/c/1/0", "activations/c/4/0"])
    assert [chunk.key for chunk in seen.training.chunks] == [
        "activations/c/1/0",
        "activations/c/4/0",
    ]
    assert seen.training.vectors == 22
    assert seen.evaluation is not None
    assert seen.evaluation.vectors == 0


CHUNK = "activations/c/1/0"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (building.remove, "missing"),
        (building.truncate, "not 516 bytes long"),
        (building.empty, "not 516 bytes long"),
    ],
)
@pytest.mark.parametrize("key", [CHUNK, "evaluation/activations/c/0/0"])
def test_open_store_finds_a_chunk_that_is_not_there_in_full(store, damage, text, key):
    damage(store / key)
    with pytest.raises(DamagedStoreError, match=text) as caught:
        open_store(store)
    assert caught.value.chunks == [key]
    assert key in str(caught.value)
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_open_store_lists_everything_that_is_wrong_at_once(store):
    building.remove(store / "activations/c/0/0")
    building.truncate(store / "activations/c/2/0")
    building.remove(store / "statistics/norms/c/3")
    building.remove(store / "tokens/c/0/0")
    building.empty(store / "activations/zarr.json")
    with pytest.raises(DamagedStoreError) as caught:
        open_store(store)
    assert sorted(caught.value.chunks) == [
        "activations/c/0/0",
        "activations/c/2/0",
        "activations/zarr.json",
        "statistics/norms/c/3",
        "tokens/c/0/0",
    ]
    assert all(key in str(caught.value) for key in caught.value.chunks)


def test_many_missing_chunks_are_counted_not_listed(store):
    building.remove(store / "activations/c")
    with pytest.raises(DamagedStoreError, match=r"activations/c/4/0: missing; run"):
        open_store(store)
    building.remove(store / "evaluation/activations/c")
    with pytest.raises(DamagedStoreError, match="and 2 more: missing"):
        open_store(store)


@pytest.mark.parametrize("offset", [0, 200, 511, 512, 515])
def test_a_flipped_bit_in_rows_or_checksum_is_found_on_mapping(store, offset):
    building.flip_bit(store / CHUNK, offset)
    part = open_store(store).training
    part.rows(part.chunks[0])
    with pytest.raises(DamagedStoreError, match=r"activations/c/1/0: corrupt"):
        part.rows(part.chunks[1])
    with pytest.raises(DamagedStoreError):
        list(part.batches(10))
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        zarr.open_group(store, mode="r")["activations"][:]


@pytest.mark.parametrize("key", ["statistics/norms/c/0", "statistics/summary/c/0/0"])
def test_damaged_statistics_are_found_on_reading(store, key):
    building.flip_bit(store / key)
    part = open_store(store).training
    with pytest.raises(DamagedStoreError, match=key):
        _ = (part.median_norm, part.mean)


@pytest.mark.parametrize("damage", [building.flip_bit, building.truncate, building.empty])
def test_damaged_tokens_are_found_on_reading(store, damage):
    damage(store / "tokens/c/0/0")
    with pytest.raises(DamagedStoreError, match="tokens/c/0/0"):
        open_store(store).training.tokens(range(1))


def test_a_chunk_that_vanishes_after_opening_is_an_error_and_no_zeros(store):
    opened = open_store(store)
    building.remove(store / CHUNK)
    building.remove(store / "tokens/c/0/0")
    with pytest.raises(DamagedStoreError, match="missing"):
        opened.training.rows(opened.training.chunks[1])
    with pytest.raises(DamagedStoreError, match="missing"):
        opened.training.tokens(range(1))


def test_zarr_reads_a_missing_chunk_as_nan(store):
    building.remove(store / CHUNK)
    rows = zarr.open_group(store, mode="r")["activations"][:]
    assert np.isnan(rows[16:32]).all()  # type: ignore[arg-type]
    assert np.isfinite(rows[:16]).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b'{"zarr_format": 3', b"\xff\xfe", b"[1]garbage", b"[]"])
def test_broken_json(store, content):
    (store / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"zarr\.json: .*JSON") as caught:
        open_store(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", '{"attributes": null}', '{"attributes": {"other": 1}}'])
def test_a_zarr_group_that_is_no_store(store, content):
    (store / "zarr.json").write_text(content)
    with pytest.raises(StoreError, match="no cpsae store"):
        open_store(store)


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        open_store(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match=r"it has no zarr\.json"):
        open_store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        open_store(tmp_path / "file")


def edit_manifest(path, **changes):
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["cpsae"].update(changes)
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_format_version_is_refused(store, version):
    edit_manifest(store, format_version=version)
    with pytest.raises(StoreError, match="format version"):
        open_store(store)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vectors": "many"}, "vectors"),
        ({"vectors": 0}, "vectors"),
        ({"store_dtype": "float8"}, "store_dtype"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"hook": {"name": "x"}}, r"hook\.layer"),
    ],
)
def test_a_manifest_with_a_wrong_field_names_it(store, changes, field):
    edit_manifest(store, **changes)
    with pytest.raises(StoreError, match=rf"attributes\.cpsae\.{field} is wrong"):
        open_store(store)


def test_a_manifest_that_disagrees_with_the_arrays_is_found(store):
    edit_manifest(store, vectors=69)
    with pytest.raises(DamagedStoreError, match=r"activations/zarr\.json.*does not describe"):
        open_store(store)


def test_an_unfinished_store_needs_allow_partial(tmp_path):
    writer = building.begin(tmp_path / "acts.zarr", building.manifest())
    for chunk in writer.chunks[1:4]:
        writer.write(chunk, building.rows_of(chunk))
    with pytest.raises(StoreError, match=r"unfinished \(3 of 7 chunks\).*--allow-partial"):
        open_store(writer.bucket.path)
    partial = open_store(writer.bucket.path, allow_partial=True)
    assert [chunk.key for chunk in partial.chunks] == [
        "evaluation/activations/c/1/0",
        "activations/c/0/0",
        "activations/c/1/0",
    ]
    assert partial.training.vectors == 32
    np.testing.assert_array_equal(
        np.concatenate(list(partial.training.batches(5))), expected_rows(partial.training)
    )


def test_a_partial_store_counts_no_chunk_without_its_statistics(store):
    edit_manifest(store, complete=False)
    building.remove(store / "statistics/summary/c/1/0")
    assert CHUNK not in [chunk.key for chunk in open_store(store, allow_partial=True).chunks]


def test_a_store_without_its_tokens_cannot_be_read_yet(tmp_path):
    from cpsae.store import StoreWriter

    StoreWriter.create(tmp_path / "acts.zarr", building.manifest())
    with pytest.raises(StoreError, match="no tokens yet"):
        open_store(tmp_path / "acts.zarr", allow_partial=True)
