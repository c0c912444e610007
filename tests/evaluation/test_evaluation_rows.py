"""Slices of held-out rows: which context and batch each row is of, and the mean of those that
count."""

import numpy as np
import pytest
from tiny import TOKENS

from cpsae.errors import SettingsError
from cpsae.evaluation.rows import HeldOutRows
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.store import open_store

NONE = SpecialTokens((), "store")


@pytest.fixture(scope="module", params=[False, True], ids=["BOS dropped", "BOS kept"])
def store(request, trained):
    return open_store(trained("llama", keep_bos=request.param).store)


def rows_of(part):
    return np.concatenate([part.rows(chunk) for chunk in part.chunks]).astype(np.float64)


@pytest.mark.parametrize("contexts", [None, 1, 5, 16, 17, 99])
@pytest.mark.parametrize("most", [7, 2048])
def test_slices_are_the_rows_in_order(store, contexts, most, monkeypatch):
    monkeypatch.setattr("cpsae.evaluation.rows.SLICE_ROWS", most)
    held_out = HeldOutRows(store, SpecialTokens((1, 2), "store"), contexts)
    slices = list(held_out.slices())
    whole, width = rows_of(store.evaluation), store.manifest.contexts.rows
    count = len(whole) if contexts is None else min(len(whole), contexts * width)
    assert held_out.rows == count and held_out.units == -(-count // width)
    np.testing.assert_array_equal(np.concatenate([s.rows for s in slices]), whole[:count])
    units = np.concatenate([s.units for s in slices])
    np.testing.assert_array_equal(units, np.arange(count) // width)
    batches = np.concatenate([np.full(len(s.rows), s.batch) for s in slices])
    np.testing.assert_array_equal(batches, units // 16)
    assert all(len(s.rows) <= most for s in slices)
    special = np.concatenate([s.special for s in slices])
    for row in range(count):
        context, position = store.evaluation.origin(row)
        token = store.evaluation.tokens(range(context, context + 1))[0, position]
        assert special[row] == (token in (1, 2))
    assert special.any()


@pytest.mark.parametrize("contexts", [None, 3])
def test_the_mean_of_the_rows_that_count(store, contexts):
    held_out = HeldOutRows(store, NONE, contexts)
    rows = rows_of(store.evaluation)[: held_out.rows]
    norms = np.sqrt((rows**2).sum(1))
    for bound in (np.median(norms), np.inf):
        expected = rows[norms.astype(np.float32) <= bound].mean(0)
        np.testing.assert_allclose(held_out.mean(bound), expected, rtol=1e-12, atol=1e-12)
    assert not held_out.mean(0.0).any()


def test_chunks_that_are_not_there_leave_no_gap_in_the_count(trained, monkeypatch):
    monkeypatch.setattr("cpsae.store.layout.MOST_CONTEXTS_A_CHUNK", 4)
    store = open_store(trained("llama", vectors=600, tokens=TOKENS - 1).store)
    keys = [chunk.key for chunk in store.chunks]
    gone = "evaluation/activations/c/0/0"
    part = store.only([key for key in keys if key != gone])
    held_out = HeldOutRows(part, NONE)
    assert gone in keys and held_out.units == len({u for s in held_out.slices() for u in s.units})
    assert next(held_out.slices()).units[0] == 0
    np.testing.assert_allclose(held_out.mean(np.inf), rows_of(part.evaluation).mean(0), rtol=1e-12)


def test_no_contexts_at_all_is_refused(store):
    with pytest.raises(SettingsError, match="--contexts: 0 is not a number of contexts"):
        HeldOutRows(store, NONE, 0)
