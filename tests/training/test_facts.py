"""What a run begins with, against plain numpy."""

import json

import numpy as np
import pytest
import torch
from strict_json import read_strictly

from cpsae.errors import SettingsError
from cpsae.store.bound import norm_bound
from cpsae.training.facts import Facts, find_facts
from cpsae.training.member import new_trainable, refuse_unfit
from cpsae.training.settings import FitSettings
from cpsae.training.start import mean_normalized

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows():
    rows = np.random.default_rng(1).standard_normal((300, 7)).astype(np.float32) + 0.2
    rows[[5, 6, 7]] *= 1000
    return rows


@pytest.fixture(scope="module")
def store(rows, make_store):
    return make_store(rows)


def facts_of(store, **values):
    return find_facts(store.training, FitSettings(batch_size=10, **values), CPU)


def begun(store, **values):
    settings = FitSettings(batch_size=10, **values)
    facts = find_facts(store.training, settings, CPU)
    start = {} if settings.init == "uniform" else {"mean": mean_normalized(store.training, facts)}
    return new_trainable(settings, facts, store.d, CPU, start)


def test_b_dec_is_the_mean_of_the_normalised_rows_that_count(store, rows):
    kept = np.delete(rows, [5, 6, 7], axis=0).astype(np.float64)
    x = kept - kept.mean(1, keepdims=True)
    x /= np.sqrt((x * x).sum(1, keepdims=True))
    state = begun(store)
    np.testing.assert_allclose(state.optimizer.weights["b_dec"].numpy(), x.mean(0), atol=1e-6)
    assert torch.equal(state.optimizer.weights["w_enc"], state.optimizer.weights["w_dec"])
    assert not state.optimizer.weights["b_enc"].any()
    assert state.enabling.n_enabled == 1  # floor(7 / 4)


def test_uniform_begins_with_no_b_dec(store):
    assert not begun(store, init="uniform").optimizer.weights["b_dec"].any()


@pytest.mark.parametrize(("max_norm", "left_out"), [(10.0, [5, 6, 7]), (0.0, [])])
def test_scales_come_from_the_rows_that_count(store, rows, max_norm, left_out):
    norms = np.sqrt((np.delete(rows, left_out, axis=0).astype(np.float64) ** 2).sum(1))
    unit = facts_of(store, normalize="unit", max_norm=max_norm)
    root = facts_of(store, normalize="sqrt-d", max_norm=max_norm)
    assert unit.normalizer.scale == pytest.approx(np.sqrt((norms**2).mean()), rel=1e-6)
    assert root.normalizer.scale == pytest.approx(norms.mean() / np.sqrt(7), rel=1e-6)
    assert store.training.rows_over(unit.norm_bound) == len(left_out)
    assert unit.skipped_share == pytest.approx(len(left_out) / 300)


def test_only_the_first_rows_in_store_order_count(store, monkeypatch):
    monkeypatch.setattr("cpsae.store.bound.FACT_ROWS", 100)
    stored = np.concatenate([store.training.rows(chunk) for chunk in store.training.chunks])
    norms = np.sqrt((stored.astype(np.float64) ** 2).sum(1))
    bound = 10 * np.median(norms[:100])
    facts = facts_of(store, normalize="unit")
    kept = norms[:100][norms[:100] <= bound]
    assert facts.norm_bound == pytest.approx(bound, rel=1e-6)
    assert facts.normalizer.scale == pytest.approx(np.sqrt((kept**2).mean()), rel=1e-6)
    x = stored[:100][norms[:100] <= bound].astype(np.float64) / facts.normalizer.scale
    np.testing.assert_allclose(mean_normalized(store.training, facts).numpy(), x.mean(0), atol=1e-6)


def test_rows_of_norm_0_do_not_count_in_the_median(make_store):
    rows = np.random.default_rng(0).standard_normal((3000, 6)).astype(np.float32)
    rows[:1800] = 0
    store = make_store(rows)
    norms = np.sqrt((rows[1800:].astype(np.float64) ** 2).sum(1))
    assert norm_bound(store.training, 10.0) == pytest.approx(10 * np.median(norms), rel=1e-6)
    assert facts_of(store).skipped_share == 0
    nothing = make_store(np.zeros((100, 6), np.float32))
    assert norm_bound(nothing.training, 10.0) == np.inf


@pytest.mark.parametrize("max_norm", [10.0, 0.0])
def test_facts_go_through_json(store, max_norm):
    facts = facts_of(store, normalize="unit", max_norm=max_norm)
    assert Facts.from_json(read_strictly(json.dumps(facts.as_json()))) == facts


def test_settings_that_do_not_fit_are_refused(store):
    with pytest.raises(SettingsError, match="batch_size 301 is above the store's 300"):
        find_facts(store.training, FitSettings(batch_size=301), CPU)
    with pytest.raises(SettingsError, match="k = 8 is above n_latents"):
        begun(store, kind="topk", k=8)


def test_weights_that_no_memory_holds_are_one_line(store):
    for kind in ("relu", "topk"):
        with pytest.raises(SettingsError, match="n_latents 1000000000000: .* take a smaller"):
            begun(store, n_latents=10**12, kind=kind)
    schedule = facts_of(store).schedule
    with pytest.raises(SettingsError, match="n_latents 1000000000000: .* take a smaller"):
        refuse_unfit(FitSettings(kind="topk", n_latents=10**12, k=2), schedule, store.d)
