"""What a run begins with, against plain numpy."""

import numpy as np
import pytest
import torch

from cpsae.config import FitSettings
from cpsae.errors import SettingsError
from cpsae.training.begin import begin, normalizer_of
from cpsae.training.feed import ActivationFeed
from cpsae.training.schedule import Schedule

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows():
    rows = np.random.default_rng(1).standard_normal((300, 7)).astype(np.float32) + 0.2
    rows[[5, 6, 7]] *= 1000
    return rows


@pytest.fixture(scope="module")
def store(rows, make_store):
    return make_store(rows)


def begun(store, **values):
    settings = FitSettings(batch_size=10, **values)
    feed = ActivationFeed(store.training, 10, max_norm=settings.max_norm)
    return begin(feed, settings, Schedule.of(settings, store.training.vectors), CPU)


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
    feed = ActivationFeed(store.training, 10, max_norm=max_norm)
    unit = normalizer_of(store.training, FitSettings(normalize="unit"), feed.norm_bound)
    root = normalizer_of(store.training, FitSettings(normalize="sqrt-d"), feed.norm_bound)
    assert unit.scale == pytest.approx(np.sqrt((norms**2).mean()), rel=1e-6)
    assert root.scale == pytest.approx(norms.mean() / np.sqrt(7), rel=1e-6)
    assert store.training.rows_over(feed.norm_bound) == len(left_out)


def test_settings_that_do_not_fit_are_refused(store):
    settings = FitSettings(batch_size=301)
    feed = ActivationFeed(store.training, 301)
    with pytest.raises(SettingsError, match="batch_size 301 is above the store's 300"):
        begin(feed, settings, Schedule.of(settings, 300), CPU)
    with pytest.raises(SettingsError, match="k = 8 is above n_latents"):
        begun(store, kind="topk", k=8)


def test_restoring_reads_no_row(store, monkeypatch):
    settings = FitSettings(batch_size=10)
    feed = ActivationFeed(store.training, 10)
    monkeypatch.setattr(store.training, "rows", lambda _chunk: pytest.fail("read"))
    begin(feed, settings, Schedule.of(settings, 300), CPU, restoring=True)


def test_weights_that_no_memory_holds_are_one_line(store):
    settings = FitSettings(batch_size=16, n_latents=10**12)
    with pytest.raises(SettingsError, match="n_latents 1000000000000: .* take a smaller"):
        begin(ActivationFeed(store.training, 16), settings, Schedule.of(settings, 270), CPU)
