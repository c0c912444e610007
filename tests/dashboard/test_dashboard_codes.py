"""The sparse table of codes against the dense latents of all rows."""

import numpy as np
import pytest
import torch

from cpsae.dashboard import codes as module
from cpsae.dashboard.codes import encode_rows
from cpsae.dashboard.rows import SeenRows
from cpsae.stages.load import load
from cpsae.store import open_store
from cpsae.store.statistics import as_float32


@pytest.fixture(scope="module")
def run(shown_runs):
    return shown_runs / "k=4"


def dense(sae, seen):
    rows = np.concatenate([as_float32(p.part.rows(p.chunk))[: p.count] for p in seen.pieces])
    latents = sae.latents(torch.from_numpy(rows))
    return rows, latents.raw.numpy(), latents.competed.numpy()


def test_rows_are_the_held_out_ones_and_then_those_of_training(shown_store) -> None:
    store = open_store(shown_store)
    few, many = SeenRows(store, 100), SeenRows(store, 1000)
    per_context = store.manifest.contexts.rows
    assert few.rows == few.held_out == -(-100 // per_context) * per_context
    assert many.held_out == store.evaluation.vectors
    assert many.rows == -(-1000 // per_context) * per_context
    assert SeenRows(store, 10**9).rows == 3300


def test_contexts_and_positions_of_rows_are_those_of_the_store(shown_store) -> None:
    store = open_store(shown_store)
    seen = SeenRows(store, 1000)
    rows = np.arange(seen.rows)
    numbers, positions = seen.contexts(rows), seen.positions(rows)
    assert (np.diff(numbers) >= 0).all() and numbers[0] == 0
    texts = list(seen.texts())
    assert numbers[-1] == len(texts) - 1
    for row in (0, 299, 300, 301, 777, seen.rows - 1):
        part = store.evaluation if row < 300 else store.training
        origin = part.origin(row if row < 300 else row - 300)
        first, _, tokens = texts[numbers[row]]
        assert row - first == positions[row] == origin.position - 1
        expected = part.tokens(range(origin.context, origin.context + 1))[0]
        assert (tokens == expected).all()


@pytest.mark.parametrize("size", [7, 2048])
def test_codes_are_the_latents_that_fire(run, shown_store, monkeypatch, size) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", size)
    sae, seen = load(run), SeenRows(open_store(shown_store), 600)
    rows, raw, a = dense(sae, seen)
    bound = float(np.quantile(np.linalg.norm(rows, axis=1), 0.9))
    found = encode_rows(sae, seen, bound)
    counts = np.linalg.norm(rows, axis=1) <= bound
    fires = (a > 0.01 * a.max(1, keepdims=True)) & counts[:, None]
    assert (found.rows, found.counted) == (len(rows), counts.sum())
    table = np.zeros(a.shape, np.float32)
    table[found.fired.rows, found.fired.features] = found.values
    assert ((table > 0) == fires).all()
    assert table == pytest.approx(np.where(fires, a, 0), abs=1e-5)
    for row in range(0, len(rows), 17):
        mine = found.suppressed.features[slice(*found.suppressed.starts[row : row + 2])]
        off = np.where((raw[row] > 0) & ~fires[row], raw[row], 0) if counts[row] else 0 * raw[row]
        expected = [i for i in np.argsort(-off)[:16] if off[i] > 0]
        assert sorted(mine) == sorted(expected)


def test_a_full_table_ends_the_pass(run, shown_store, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 64)
    monkeypatch.setattr(module, "_MOST_ENTRIES", 300)
    found = encode_rows(load(run), SeenRows(open_store(shown_store), 3000), np.inf)
    assert found.rows == 128 and len(found.values) >= 300


def test_where_there_is_no_competition_nothing_is_suppressed(shown_store) -> None:
    from cpsae.sae.autoencoder import SparseAutoencoder
    from cpsae.sae.kinds import load_kind
    from cpsae.sae.normalization import Normalizer

    d = open_store(shown_store).d
    w = torch.nn.functional.normalize(torch.randn(20, d, generator=torch.manual_seed(0)), dim=1)
    weights = {"W_enc": w.T.contiguous(), "b_enc": torch.zeros(20), "W_dec": w}
    weights["b_dec"] = torch.zeros(d)
    kind = load_kind("relu").from_constants({}, d, 20)
    sae = SparseAutoencoder(weights, kind, Normalizer("layer"), n_enabled=20)
    found = encode_rows(sae, SeenRows(open_store(shown_store), 300), np.inf)
    assert len(found.suppressed.features) == 0 and len(found.values) > 0
