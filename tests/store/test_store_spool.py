"""Rows that come in blocks make the store that all of them at once make."""

import numpy as np
import pytest
import torch
from tiny import content_of

from cpsae.errors import CpsaeError, NonFiniteError
from cpsae.store import open_store, write_store

ROWS = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)


@pytest.mark.parametrize("kind", ["numpy", "torch", "bfloat16", "lists"])
def test_blocks_give_the_store_of_the_whole(tmp_path, kind) -> None:
    whole = {"torch": torch.from_numpy(ROWS), "bfloat16": torch.from_numpy(ROWS).bfloat16()}.get(
        kind, ROWS
    )
    blocks = [whole[:100], whole[100:101], whole[101:101], whole[101:]]
    if kind == "lists":
        whole = ROWS.tolist()
        blocks = [whole[:100], whole[100:]]
    write_store(tmp_path / "a.zarr", whole, seed=3)
    write_store(tmp_path / "b.zarr", iter(blocks), seed=3)
    assert content_of(tmp_path / "a.zarr") == content_of(tmp_path / "b.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_evaluation_in_blocks_too(tmp_path) -> None:
    path = write_store(tmp_path / "a.zarr", iter([ROWS]), (ROWS[i : i + 4] for i in (0, 4)))
    assert open_store(path).evaluation.shape == (8, 5)


def interrupted():
    yield ROWS
    raise KeyboardInterrupt


WRONG = [
    (lambda: iter([]), CpsaeError, "the blocks hold no rows"),
    (lambda: iter([ROWS[0]]), CpsaeError, "block 0: is float32 (5,), expected rows"),
    (lambda: iter([ROWS, ROWS[:, :3]]), CpsaeError, "block 1: is float32 (300, 3), expected rows"),
    (lambda: iter([ROWS, ROWS.astype("f8")]), CpsaeError, "expected rows float32 (vectors, 5)"),
    (lambda: iter([ROWS.astype(int)]), CpsaeError, "expected a float dtype"),
    (lambda: iter([ROWS, np.full((2, 5), np.nan, "f4")]), NonFiniteError, "row 300 holds NaN"),
    (interrupted, KeyboardInterrupt, ""),
]


@pytest.mark.parametrize(("blocks", "error", "text"), WRONG)
def test_what_fails_leaves_nothing(tmp_path, blocks, error, text) -> None:
    with pytest.raises(error) as raised:
        write_store(tmp_path / "a.zarr", blocks())
    assert text in str(raised.value)
    assert not (tmp_path / "a.zarr").exists() or not list((tmp_path / "a.zarr").iterdir())


def test_a_place_that_is_taken_is_refused_before_blocks_are_used(tmp_path) -> None:
    write_store(tmp_path / "a.zarr", ROWS)
    blocks = iter([ROWS])
    with pytest.raises(CpsaeError, match="is there already"):
        write_store(tmp_path / "a.zarr", blocks)
    assert next(blocks) is ROWS
