"""Held-out metrics against METHOD section 6 in float64 numpy, outliers and all."""

import numpy as np
import pytest
import torch
from strict_json import read_strictly

from cpsae.errors import SettingsError, StoreError
from cpsae.evaluation.held_out import measure, nothing_held_out
from cpsae.evaluation.rows import HeldOutRows
from cpsae.events import Advanced, Started
from cpsae.json_files import write_object
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.store import open_store, write_store
from cpsae.store.bound import norm_bound

D, N, M = 10, 24, 20
OUTLIERS = [0, 130, 299]


def rows_of(seed, count):
    return (np.random.default_rng(seed).standard_normal((count, D)) + 0.4).astype(np.float32)


@pytest.fixture(scope="module")
def evaluation():
    rows = rows_of(1, 300)
    rows[OUTLIERS] *= 500
    return rows


@pytest.fixture(scope="module")
def store(evaluation, tmp_path_factory):
    """In chunks of 128 rows; the training part has outliers too, which do not move its median."""
    training = rows_of(2, 400)
    training[:5] *= 500
    path = tmp_path_factory.mktemp("store") / "acts.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpsae.store.arrays.rows_per_chunk_of_arrays", lambda _d, _dtype: 128)
        write_store(path, training, evaluation, store_dtype="float32")
    return open_store(path)


def made(kind="competitive", normalize="layer", b_enc=-0.15, **constants):
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1)
    w_dec[3] = w_dec[2]  # a pair that has collapsed
    weights = {
        "W_enc": w_dec.T.contiguous() * 1.1,
        "b_enc": torch.full((N,), b_enc),
        "W_dec": w_dec,
        "b_dec": torch.linspace(-0.1, 0.1, D),
    }
    weights["b_enc"][5] = -100.0  # dead
    constants = {"temperature": 0.08, "over": "enabled", **constants}
    rule = load_kind(kind).from_constants(constants, D, N)
    scale = {"scale": 3.0} if normalize == "unit" else {}
    return SparseAutoencoder(weights, rule, Normalizer(normalize, **scale), n_enabled=M)


def evaluate_held_out(sae, store, max_norm=10.0):
    [result] = measure([sae], store, float(norm_bound(store.training, max_norm)))  # type: ignore[misc]
    return result


def by_hand(sae, rows):
    """Latents (rows, M) and raw reconstructions, in float64."""
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in sae.named_parameters()}
    x = rows.astype(np.float64)
    center, scale = 0.0, 3.0
    if sae.normalizer.name == "layer":
        center = x.mean(1, keepdims=True)
        scale = np.sqrt(((x - center) ** 2).sum(1, keepdims=True))
    f = np.maximum((x - center) / scale @ w["W_enc"][:, :M] + w["b_enc"][:M], 0)
    a = f
    if hasattr(sae.kind, "schedule"):
        e = np.exp((f - f.max(1, keepdims=True)) / 0.08)
        a = e / e.sum(1, keepdims=True) * f
    return a, (a @ w["W_dec"][:M] + w["b_dec"]) * scale + center


def expected_metrics(sae, rows):
    x = rows.astype(np.float64)
    a, x_hat = by_hand(sae, rows)
    full = np.hstack([a, np.zeros((len(a), N - M))])
    dots = (x * x_hat).sum(1)
    rates = (full != 0).mean(0)
    return {
        "l0": (a != 0).sum(1).mean(),
        "l0_eff": (a > 0.01 * a.max(1, keepdims=True)).sum(1).mean(),
        "l1": a.sum(1).mean(),
        "dead": (rates == 0).mean(),
        "dense": (rates > 0.1).mean(),
        "activation_variance": rates.var(),
        "explained_variance": 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "mse": ((x - x_hat) ** 2).mean(),
        "cosine": (dots / np.sqrt((x**2).sum(1) * (x_hat**2).sum(1))).mean(),
        "relative_bias": (x_hat**2).sum() / dots.sum(),
    }


def nearest_neighbours(sae):
    w = sae.W_dec[:M].numpy().astype(np.float64)
    w /= np.sqrt((w * w).sum(1, keepdims=True))
    return (w @ w.T - 9 * np.eye(M)).max(1).mean()


@pytest.mark.parametrize(
    ("kind", "normalize"), [("competitive", "layer"), ("relu", "layer"), ("relu", "unit")]
)
def test_metrics_are_those_of_the_rows_that_count(store, evaluation, kind, normalize):
    sae = made(kind, normalize)
    got = evaluate_held_out(sae, store).metrics
    for name, value in expected_metrics(sae, np.delete(evaluation, OUTLIERS, axis=0)).items():
        assert got[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    everything = expected_metrics(sae, evaluation)["explained_variance"]
    assert got["explained_variance_all_rows"] == pytest.approx(everything, rel=1e-5)
    assert abs(got["explained_variance_all_rows"] - got["explained_variance"]) > 1e-3
    assert got["decoder_cosine"] == pytest.approx(nearest_neighbours(sae), rel=1e-5)
    assert (got["evaluation_rows"], got["evaluation_skipped_rows"]) == (297, 3)


def test_without_a_bound_every_row_counts(store, evaluation):
    sae = made()
    got = evaluate_held_out(sae, store, max_norm=0).metrics
    assert got["explained_variance"] == got["explained_variance_all_rows"]
    assert got["mse"] == pytest.approx(expected_metrics(sae, evaluation)["mse"], rel=1e-5)
    assert (got["evaluation_rows"], got["evaluation_skipped_rows"]) == (300, 0)


def test_a_slice_of_outliers_alone(store, monkeypatch):
    whole = evaluate_held_out(made(), store).metrics
    monkeypatch.setattr("cpsae.evaluation.rows.SLICE_ROWS", 1)
    single = evaluate_held_out(made(), store).metrics
    assert single == {name: pytest.approx(value, rel=1e-6) for name, value in whole.items()}


def test_intervals_over_rows_where_there_are_no_contexts(store, evaluation):
    sae = made()
    result = evaluate_held_out(sae, store)
    assert result.basis["bootstrap"]["over"] == "rows"
    assert result.basis["evaluation_contexts"] is None
    kept = np.flatnonzero(~np.isin(np.arange(300), OUTLIERS))
    a, x_hat = by_hand(sae, evaluation)
    error = np.where(np.isin(np.arange(300), kept), ((evaluation - x_hat) ** 2).sum(1), 0)
    random = np.random.default_rng(0)
    drawn = [random.integers(300, size=300) for _ in range(1000)]
    means = [error[d].sum() / np.isin(d, kept).sum() / D for d in drawn]
    expected = [np.percentile(means, q) for q in (2.5, 97.5)]
    assert result.intervals["mse_ci"] == pytest.approx(expected, rel=1e-5)
    fired = [(a[d] != 0).sum(1)[np.isin(d, kept)].mean() for d in drawn]
    expected = [np.percentile(fired, q) for q in (2.5, 97.5)]
    assert result.intervals["l0_ci"] == pytest.approx(expected, rel=1e-5)


def test_which_figures_have_intervals(store):
    found = evaluate_held_out(made(), store).intervals
    ours = {"l0", "l0_eff", "l1", "explained_variance", "explained_variance_all_rows"}
    ours |= {"mse", "cosine", "relative_bias"}
    assert {n for n in found if not n.startswith("saebench/")} == {f"{name}_ci" for name in ours}
    assert all(low < high for low, high in found.values())


def test_density_counts_every_feature_that_fired(store):
    result = evaluate_held_out(made("relu"), store)
    assert len(result.density_edges) == len(result.density_counts) + 1
    assert sum(result.density_counts) == round(N * (1 - result.metrics["dead"]))
    assert result.as_json()["density"]["features"] == result.density_counts


@pytest.mark.parametrize("case", ["nothing fires", "every row skipped", "nothing held out"])
def test_what_is_not_defined_is_null(store, tmp_path, case):
    if case == "nothing fires":
        sae = made("relu", "unit", b_enc=-1e6)
        sae.b_dec.zero_()  # reconstructions of 0: relative_bias is 0 / 0
        result = evaluate_held_out(sae, store)
        undefined = {"relative_bias"}
    elif case == "every row skipped":
        result = evaluate_held_out(made(), store, max_norm=1e-6)
        undefined = {"l0", "l0_eff", "explained_variance", "mse", "cosine", "l1", "dead", "dense"}
        undefined |= {"activation_variance"}
    else:
        result = nothing_held_out(made())
        undefined = {"explained_variance", "explained_variance_all_rows", "dead"}
    write_object(tmp_path / "evaluation.json", result.as_json())
    written = read_strictly((tmp_path / "evaluation.json").read_text())
    assert all(written[name] is None for name in undefined)
    assert all(written.get(f"{name}_ci") is None for name in undefined)
    assert written["decoder_cosine"] is not None


def test_another_width_is_refused(store):
    kind = load_kind("relu").from_constants({}, 7, N)
    shapes = {"W_enc": (7, N), "b_enc": (N,), "W_dec": (N, 7), "b_dec": (7,)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    sae = SparseAutoencoder(weights, kind, Normalizer("none"), n_enabled=M)
    with pytest.raises(StoreError, match="d = 10, the autoencoder takes 7"):
        evaluate_held_out(sae, store)


def test_contexts_of_a_store_that_has_none_are_refused(store):
    with pytest.raises(SettingsError, match="was made from arrays and has no contexts; leave it"):
        measure([made()], store, contexts=3)


def test_several_in_one_pass_are_each_as_alone_and_each_slice_is_read_once(store, monkeypatch):
    saes = [made(), made("relu"), made("relu", "unit")]
    alone = [evaluate_held_out(sae, store) for sae in saes]
    read, slices = [], HeldOutRows.slices

    def counted(self):
        for piece in slices(self):
            read.append(piece.units[0])
            yield piece

    monkeypatch.setattr(HeldOutRows, "slices", counted)
    assert measure(saes, store, float(norm_bound(store.training, 10.0))) == alone
    assert read == [0, 128, 256]


def test_a_stop_is_answered_between_batches(store):
    heard = []
    assert measure([made()], store, on_event=heard.append, should_stop=lambda: True) is None
    asked = iter([False, True])
    assert measure([made()], store, on_event=heard.append, should_stop=lambda: next(asked)) is None


def test_progress_of_a_store_with_gaps_ends_at_its_end(store):
    """Row numbers of the whole store against the rows that are there would run over 100 %."""
    last = store.only([c.key for c in store.chunks if c.part.prefix == "" or c.index == 2])
    heard = []
    measure([made()], last, on_event=heard.append)
    total = next(event.total for event in heard if isinstance(event, Started))
    done = [event.done for event in heard if isinstance(event, Advanced)]
    assert done[-1] == total == 300 - 256
    assert all(count <= total for count in done)
