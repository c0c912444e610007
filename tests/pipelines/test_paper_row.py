"""The table of what the paper's own row implies: each part against float64 numpy."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import paper_row
import pytest

from cpsae.stages.fit import fit
from cpsae.stages.load import load
from cpsae.store import write_store
from cpsae.training.recipes import preset, resolve_fit

sys.path.insert(0, str(Path(__file__).parent.parent / "evaluation"))

from by_files import Autoencoder, bound, held_out_rows, ours

D = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Rows far from unit norm, with a mean, and outliers among those that are held out."""
    random = np.random.default_rng(0)
    basis = random.standard_normal((40, D))
    codes = np.maximum(random.standard_normal((3000, 40)) - 1, 0)
    rows = (codes @ basis * 30 + 25).astype(np.float32)
    rows[2700:2703] *= 400
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    write_store(path, rows[:2600], rows[2600:], store_dtype="float32")
    return path


def trained(store, folder, name, **changes):
    values = {"steps": 200, "batch_size": 64, "device": "cpu", "lr": 3e-3, "normalize": "unit"}
    layers = {"--set": {**values, **changes}, f"preset {name}": preset(name)}
    return fit(store, resolve_fit(layers).settings, out=folder, preset=name).path


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [trained(store, folder / name, name) for name in ("baseline", "paper")]


def folded_by_hand(run, temperature_too):
    """The run's files, for raw vectors."""
    sae = Autoencoder(run)
    scale = sae.about["normalization"]["scale"]
    sae.about["normalization"] = {"name": "none"}
    sae.b_enc, sae.b_dec = sae.b_enc * scale, sae.b_dec * scale
    sae.about["temperature"] *= scale if temperature_too else 1
    return sae


def test_every_row_is_that_of_float64(store, runs, tmp_path, capsys) -> None:
    out = tmp_path / "row.json"
    assert paper_row.main([*map(str, runs), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    x = held_out_rows(store)
    kept = np.sqrt((x**2).sum(1)) <= bound(store, 10.0)
    assert 0 < (~kept).sum() < 10
    scale = found["scale"]
    assert scale > 50
    for name, sae, unit in (
        (paper_row.BASELINE, Autoencoder(runs[0]), scale),
        (paper_row.TRAINED, Autoencoder(runs[1]), scale),
        (paper_row.FOLDED, folded_by_hand(runs[1], False), 1),
        (paper_row.FOLDED_WITH_T, folded_by_hand(runs[1], True), 1),
    ):
        expected = ours(sae, x, kept)
        expected["l1"] *= unit
        for key in set(paper_row.COLUMNS) - {"l0"}:  # a softmax is 0 where float32 ends
            assert found["rows"][name][key] == pytest.approx(expected[key], rel=1e-4), (name, key)
    # exact only where T is scaled too
    rows = found["rows"]
    assert rows[paper_row.FOLDED_WITH_T] == pytest.approx(rows[paper_row.TRAINED], rel=1e-4)
    assert rows[paper_row.FOLDED]["l0"] < 0.5 * rows[paper_row.TRAINED]["l0"]
    mean = x[kept].mean(0)
    share = (mean**2).sum() / (x[kept] ** 2).sum(1).mean()
    assert found["check"]["mean_share"] == pytest.approx(share, rel=1e-6)
    told = capsys.readouterr().out
    assert "| the paper's CPSAE | 42.05 | 168.8 | 0.727 | -0.065 |  |" in told
    assert "amplitude is 0.45 or 1.55 times the best one (assumed: like cosines)" in told


def test_folding_leaves_the_run_as_it_was(runs) -> None:
    sae = load(runs[1])
    before = {name: tensor.clone() for name, tensor in sae.named_parameters()}
    temperature = float(sae.kind.tensors["temperature"])
    paper_row.folded(sae, temperature_too=True)
    assert all((tensor == before[name]).all() for name, tensor in sae.named_parameters())
    assert float(sae.kind.tensors["temperature"]) == temperature


@pytest.mark.parametrize("amplitude", [0.45, 0.9, 1.55, 2.1])
def test_implied_finds_the_amplitude_that_was_used(amplitude) -> None:
    """Vectors whose reconstructions all have one cosine, which is what is assumed."""
    random = np.random.default_rng(1)
    x = random.standard_normal((5000, D)) + 0.7

    def row(cosine, times):
        aside = random.standard_normal(x.shape)
        aside -= (aside * x).sum(1, keepdims=True) / (x**2).sum(1, keepdims=True) * x
        aside *= np.sqrt((x**2).sum(1, keepdims=True) / (aside**2).sum(1, keepdims=True))
        best = cosine * (cosine * x + math.sqrt(1 - cosine**2) * aside)
        error = ((x - times * best) ** 2).sum()
        return {
            "cosine": cosine,
            "explained_variance": 1 - error / ((x - x.mean(0)) ** 2).sum(),
        }

    found = paper_row.implied(row(0.8, 1.0), row(0.7, amplitude))
    share = (x.mean(0) ** 2).sum() / (x**2).sum(1).mean()
    assert found.mean_share == pytest.approx(share, abs=1e-9)
    assert found.best_explained_variance == pytest.approx(row(0.7, 1.0)["explained_variance"])
    assert min(abs(s - amplitude) for s in found.amplitudes or ()) < 1e-6


def test_implied_scale_is_the_root_mean_squared_norm() -> None:
    """Of vectors and reconstructions of one cosine, their error as SAEBench gives it."""
    random = np.random.default_rng(2)
    x = 40 * random.standard_normal((4000, D)) + 30
    cosine = 0.8
    error = (1 - cosine**2) * (x**2).sum()
    row = {
        "cosine": cosine,
        "explained_variance": 1 - error / ((x - x.mean(0)) ** 2).sum(),
        "mse": error / len(x) / 2032,
    }
    norm = np.sqrt((x**2).sum(1).mean())
    assert paper_row.implied_scale(row, row) == pytest.approx(norm)


def test_no_amplitude_gives_more_than_the_best_one() -> None:
    baseline = {"cosine": 0.8, "explained_variance": 0.4}
    found = paper_row.implied(baseline, {"cosine": 0.7, "explained_variance": 0.3})
    assert found.amplitudes is None and found.best_explained_variance < 0.3


def test_refusals(store, runs, tmp_path, capsys) -> None:
    layer = trained(store, tmp_path / "layer", "paper", normalize="layer", steps=2)
    unbounded = trained(store, tmp_path / "unbounded", "paper", max_norm=0.0, steps=2)
    for arguments, text in (
        ([runs[0], layer], f"error: {layer}: was trained with normalize=layer"),
        ([runs[0], runs[0]], f"error: {runs[0]}: is of the kind relu"),
        ([runs[0], unbounded], f"error: {unbounded}: was trained on other rows"),
        ([runs[0], tmp_path], f"error: {tmp_path}"),
    ):
        assert paper_row.main([*map(str, arguments), "--out", str(tmp_path / "o.json")]) == 1
        told = capsys.readouterr().err
        assert told.startswith(text) and told.count("\n") == 1
    assert not (tmp_path / "o.json").exists()
