import errno
import os

import ml_dtypes
import numpy as np
import pytest
import torch

from cpsae.errors import DiskError, NonFiniteError, StoreError
from cpsae.held_out import held_out_rows
from cpsae.store import open_store, verify_store, write_store

N, D = 1000, 12


def plain(n=N, d=D):
    """Rows that can be told apart in every data type: two small integers name a row."""
    rows = np.random.default_rng(0).standard_normal((n, d)).astype(ml_dtypes.bfloat16)
    rows[:, 0], rows[:, 1] = np.arange(n) // 100, np.arange(n) % 100
    return rows.astype(np.float32)


def rows_in(part):
    return np.concatenate(list(part.batches(300))).astype(np.float32)


def numbers_of(rows):
    return (rows[:, 0] * 100 + rows[:, 1]).astype(int)


@pytest.mark.parametrize("store_dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_every_row_is_stored_once_rounded_to_the_store_s_type(tmp_path, given, store_dtype):
    rows = plain().astype(given)
    store = open_store(write_store(tmp_path / "a.zarr", rows, store_dtype=store_dtype))
    rounded = rows.astype(ml_dtypes.bfloat16 if store_dtype == "bfloat16" else store_dtype)
    seen = np.concatenate([rows_in(store.evaluation), rows_in(store.training)])
    assert sorted(numbers_of(seen)) == list(range(N))
    np.testing.assert_array_equal(seen, rounded.astype(np.float32)[numbers_of(seen)])
    assert store.manifest.store_dtype == store_dtype
    assert not verify_store(store.path).problems


def test_a_memory_mapped_file_gives_the_same_store(tmp_path):
    rows = plain()
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    stores = [
        open_store(write_store(tmp_path / name, given))
        for name, given in (("a.zarr", rows), ("b.zarr", mapped))
    ]
    assert stores[0].identity == stores[1].identity
    np.testing.assert_array_equal(rows_in(stores[0].training), rows_in(stores[1].training))


def test_the_held_out_share_is_extract_s_and_rows_are_shuffled(tmp_path):
    store = open_store(write_store(tmp_path / "a.zarr", plain(), seed=3))
    assert store.evaluation.vectors == held_out_rows(N) == 100
    assert store.training.vectors == 900
    numbers = numbers_of(rows_in(store.training))
    assert (np.diff(numbers) == 1).mean() < 0.02
    again = open_store(write_store(tmp_path / "b.zarr", plain(), seed=3))
    np.testing.assert_array_equal(numbers, numbers_of(rows_in(again.training)))
    other = open_store(write_store(tmp_path / "c.zarr", plain(), seed=4))
    assert (numbers != numbers_of(rows_in(other.training))).any()


def test_one_s_own_held_out_rows_keep_their_order(tmp_path):
    rows = plain()
    store = open_store(write_store(tmp_path / "a.zarr", rows[:800], rows[800:]))
    assert numbers_of(rows_in(store.evaluation)).tolist() == list(range(800, 1000))
    assert sorted(numbers_of(rows_in(store.training))) == list(range(800))


def test_more_rows_than_a_chunk_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("cpsae.store.arrays.rows_per_chunk_of_arrays", lambda _d, _dtype: 64)
    store = open_store(write_store(tmp_path / "a.zarr", plain()))
    assert len(store.training.chunks) == 15
    assert store.training.chunks[-1].n_rows == 900 - 14 * 64
    assert sorted(
        numbers_of(np.concatenate([rows_in(store.evaluation), rows_in(store.training)]))
    ) == list(range(N))


def test_a_small_store_has_small_chunks(tmp_path):
    store = open_store(write_store(tmp_path / "a.zarr", plain(20)))
    assert store.manifest.rows_per_chunk == 32


def test_identity_is_of_the_rows(tmp_path):
    rows = plain()
    other = rows.copy()
    other[5, 5] += 1
    first = open_store(write_store(tmp_path / "a.zarr", rows, layer=3, description="vision"))
    second = open_store(write_store(tmp_path / "b.zarr", other, layer=3, description="vision"))
    assert first.identity != second.identity
    assert first.manifest.hook.layer == 3
    assert first.manifest.description == "vision"


def test_a_store_of_arrays_has_no_tokens(tmp_path):
    store = open_store(write_store(tmp_path / "a.zarr", plain()))
    with pytest.raises(StoreError, match="holds no tokens"):
        store.training.tokens(range(1))
    with pytest.raises(StoreError, match="holds no tokens"):
        store.training.origin(0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named_as_its_owner_counts_it(tmp_path, value):
    rows = plain()
    rows[321, 7] = value
    with pytest.raises(NonFiniteError, match="activations: row 321 holds NaN or Inf"):
        write_store(tmp_path / "a.zarr", rows)
    with pytest.raises(NonFiniteError, match="evaluation: row 321 holds NaN or Inf"):
        write_store(tmp_path / "a.zarr", plain(), rows)
    assert list(tmp_path.iterdir()) == []


def test_values_that_the_store_s_type_cannot_hold_are_said_to_be_so(tmp_path):
    rows = plain()
    rows[5, 5] = 1e6
    with pytest.raises(NonFiniteError, match="row 5 has values too large for float16"):
        write_store(tmp_path / "a.zarr", rows, store_dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_norm_beyond_float32_is_refused(tmp_path):
    rows = np.full((20, 5), 3e38, np.float32)
    with pytest.raises(NonFiniteError, match="norm is beyond float32"):
        write_store(tmp_path / "a.zarr", rows)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full_later(descriptor):
        calls.append(descriptor)
        if len(calls) > 25:
            raise OSError(errno.ENOSPC, "no space")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_later)
    with pytest.raises(DiskError, match="disk is full"):
        write_store(tmp_path / "new" / "a.zarr", plain())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros(5, np.float32),), r"activations: expected rows \(vectors, d\)"),
        ((np.zeros((0, 5), np.float32),), "activations: expected rows"),
        ((np.zeros((5, 5), np.int32),), "activations: expected a float dtype, got int32"),
        ((np.zeros((1, 5), np.float32),), "hand in evaluation rows"),
        ((np.zeros((5, 5), np.float32), np.zeros((5, 4), np.float32)), "evaluation: has d = 4"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arguments, text):
    with pytest.raises(StoreError, match=text):
        write_store(tmp_path / "a.zarr", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_store_dtype(tmp_path):
    with pytest.raises(StoreError, match="float8"):
        write_store(tmp_path / "a.zarr", plain(), store_dtype="float8")  # type: ignore[arg-type]


def test_what_is_there_already_is_not_touched(tmp_path):
    write_store(tmp_path / "a.zarr", plain())
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    for name in ("a.zarr", "file", "folder"):
        with pytest.raises(StoreError, match="is there already"):
            write_store(tmp_path / name, plain(50))
    assert open_store(tmp_path / "a.zarr").training.vectors == 900
    assert (tmp_path / "folder" / "file").read_text() == "mine"


def stored(tmp_path, rows, **options):
    """What is in a store of these rows, in the order of `plain`."""
    store = open_store(write_store(tmp_path / "a.zarr", rows, **options))
    seen = np.concatenate([rows_in(store.evaluation), rows_in(store.training)])
    return seen[np.argsort(numbers_of(seen))]


def mapped(tmp_path):
    np.save(tmp_path / "rows.npy", plain())
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


FORMS = {
    "a mask without masked values": lambda _: np.ma.MaskedArray(plain(), mask=False),
    "a full mask of False": lambda _: np.ma.MaskedArray(plain(), mask=np.zeros((N, D), bool)),
    "lists": lambda _: plain().tolist(),
    "a tuple of rows": lambda _: tuple(plain()),
    "a matrix": lambda _: np.asmatrix(plain()),
    "Fortran order": lambda _: np.asfortranarray(plain()),
    "negative strides": lambda _: plain()[::-1, ::-1].copy()[::-1, ::-1],
    "every other column": lambda _: np.repeat(plain(), 2, axis=1)[:, ::2],
    "big-endian": lambda _: plain().astype(">f4"),
    "a memory map": mapped,
    "a tensor": lambda _: torch.from_numpy(plain()),
    "float64": lambda _: torch.from_numpy(plain()).double(),
    "bfloat16": lambda _: torch.from_numpy(plain()).bfloat16(),
    "a gradient": lambda _: torch.from_numpy(plain()).requires_grad_(),
    "bfloat16, transposed": lambda _: torch.from_numpy(plain()).bfloat16().T.contiguous().T,
    "a negated view": lambda _: torch._neg_view(torch.from_numpy(-plain())),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_in_whatever_form(tmp_path, form):
    np.testing.assert_array_equal(stored(tmp_path, form(tmp_path)), plain())


def test_a_tensor_on_a_device(tmp_path, device):
    np.testing.assert_array_equal(stored(tmp_path, torch.from_numpy(plain()).to(device)), plain())


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (np.ma.masked_greater(plain(), 8), "activations: .* values are masked"),
        (
            np.ma.MaskedArray(plain(), mask=np.eye(N, D, dtype=bool)),
            "12 of 12000 values are masked",
        ),
        (np.ma.MaskedArray(plain(), mask=True), "12000 of 12000 values are masked"),
        ([[1.0, 2.0], [3.0]], "activations: expected rows .* of one length"),
        ("rows.npy", "activations: expected rows"),
        (None, "activations: expected rows"),
        ([[1, 2], [3, 4]], "expected a float dtype, got int64"),
        (torch.ones(3, 2).to_sparse(), "activations: is a sparse tensor"),
        (torch.ones(3, 2, dtype=torch.complex64), "expected a float dtype, got complex64"),
    ],
)
def test_what_is_no_array_of_rows_is_one_line(tmp_path, rows, text):
    with pytest.raises(StoreError, match=text) as raised:
        write_store(tmp_path / "a.zarr", rows)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_masked_values_of_the_held_out_rows_are_refused_too(tmp_path):
    with pytest.raises(StoreError, match="evaluation: 12000 of 12000 values are masked"):
        write_store(tmp_path / "a.zarr", plain(), np.ma.MaskedArray(plain(), mask=True))
