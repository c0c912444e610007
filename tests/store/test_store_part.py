"""A part of a store as a sequence of rows, against the array that it was made of."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cpsae.errors import StoreError
from cpsae.store import open_store, write_store

N, D, ROWS_A_CHUNK = 150, 6, 32


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cpsae.store.arrays.rows_per_chunk_of_arrays", lambda _d, _dtype: ROWS_A_CHUNK
    )
    rows = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    return open_store(write_store(tmp_path / "acts.zarr", rows, rows[:10]))


@pytest.fixture
def expected(store):
    """All rows, as the chunks' files hold them."""
    files = [
        np.fromfile(store.path / chunk.key, np.uint8)[:-4]
        .view(ml_dtypes.bfloat16)
        .reshape(-1, D)[: chunk.n_rows]
        for chunk in store.training.chunks
    ]
    return np.concatenate(files)


INDICES: list[Any] = [
    slice(0, 5),
    slice(None),
    slice(30, 100),
    slice(140, 1000),
    slice(None, None, -7),
    slice(5, 5),
    0,
    -1,
    np.int64(149),
    [3, 140, 3, -2],
    [],
    np.arange(N) % 3 == 0,
    range(20, 60, 13),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices_are_numpy_s(store, expected, index) -> None:
    found = store.training[index]
    assert found.dtype == store.training.dtype == ml_dtypes.bfloat16
    numbers = list(index) if isinstance(index, range) else index
    wanted = numbers if not isinstance(index, list) else np.array(index, int)
    np.testing.assert_array_equal(found, expected[wanted])
    found[...] = 0  # a copy: the store keeps what it has
    np.testing.assert_array_equal(store.training[:], expected)


@pytest.mark.parametrize("index", [N, -N - 1, [0, N], "a", 1.5, (0, 1), [[0]], [0.5], None])
def test_what_is_no_index(store, index) -> None:
    with pytest.raises(IndexError):
        store.training[index]


def test_length_shape_iteration_and_the_whole(store, expected) -> None:
    part = store.training
    assert len(part) == N and part.shape == (N, D) and part.ndim == 2
    np.testing.assert_array_equal(list(part), expected)
    np.testing.assert_array_equal(np.concatenate(list(part.batches())), expected)
    np.testing.assert_array_equal(np.asarray(part, np.float32), expected.astype(np.float32))
    assert repr(part) == "StorePart(training: 150 x 6 bfloat16 (1.8 kB))"


def test_rows_that_are_not_there_yet(store, expected) -> None:
    partial = store.only([chunk.key for chunk in store.training.chunks if chunk.index != 1])
    part = partial.training
    assert len(part) == N - ROWS_A_CHUNK
    np.testing.assert_array_equal(part[64:], expected[64:])
    with pytest.raises(StoreError, match="row 32 of training is not there yet"):
        part[30:40]
    assert "of 150 rows" in repr(part)


def test_a_part_can_be_written_as_a_store_again(store, tmp_path) -> None:
    again = open_store(write_store(tmp_path / "b.zarr", store.training, store.training))
    np.testing.assert_array_equal(again.evaluation[:], store.training[:])
