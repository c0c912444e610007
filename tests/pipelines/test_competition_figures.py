"""Why Eq. 5 does what it does: figures of rows against brute force in numpy."""

import json
import sys
from pathlib import Path

import competition_figures
import numpy as np
import pytest
import torch

from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.stages.sweep import sweep
from cpsae.store import write_store
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.sweep import members, parse_axes

sys.path.insert(0, str(Path(__file__).parent.parent / "evaluation"))

from by_files import Autoencoder, bound, held_out_rows

D, N, M, T = 8, 20, 14, 0.3


def made(kind="competitive", **constants):
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1)
    weights = {
        "W_enc": w_dec.T.contiguous(),
        "b_enc": torch.full((N,), -0.2),
        "W_dec": w_dec,
        "b_dec": torch.linspace(-1, 1, D),
    }
    rule = load_kind(kind).from_constants({"temperature": T, **constants}, D, N)
    return SparseAutoencoder(weights, rule, Normalizer("none"), n_enabled=M)


def by_hand(f, a, w_dec):
    """Of one row: active, carriers, and the sorted contributions to the energy, whose shares come
    from inner products of every pair."""
    pairs = np.outer(a, a) * (w_dec @ w_dec.T)
    contributions = np.sort(pairs.sum(1))[::-1]
    shares = contributions.cumsum() / pairs.sum()
    return (f > 0).sum(), int(np.argmax(shares >= 0.9)) + 1, shares


@pytest.mark.parametrize("over", ["enabled", "active", None])
def test_rows_by_hand(over) -> None:
    sae = made(over=over) if over else made("relu")
    x = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    found = competition_figures.measured(sae, torch.from_numpy(x))
    w_enc, w_dec = sae.W_enc.double().numpy()[:, :M], sae.W_dec.double().numpy()[:M]
    for number, row in enumerate(x.astype(np.float64)):
        f = np.maximum(row @ w_enc - 0.2, 0)
        scores = np.exp(f / T) * ((f > 0) | (over == "enabled"))
        share = scores / scores.sum()
        a = share * f if over else f
        active, carriers, shares = by_hand(f, a, w_dec)
        assert found["active"][number] == active
        assert found["carriers"][number] == carriers
        np.testing.assert_allclose(found["curve"][number], shares, rtol=1e-4, atol=1e-5)
        if over:
            top = np.sort(f)[::-1]
            assert found["largest_share"][number] == pytest.approx(share.max(), rel=1e-5)
            assert found["lead"][number] == pytest.approx((top[0] - top[1]) / T, abs=1e-5)
    assert ("largest_share" in found) == (over is not None)
    assert len({int(count) for count in found["carriers"]}) > 2


def test_a_row_on_which_nothing_fires() -> None:
    found = competition_figures.measured(made(over="enabled"), torch.zeros(1, D))
    assert [float(found[key]) for key in ("active", "carriers", "largest_share", "lead")] == [0] * 4
    assert found["curve"].eq(0).all()


def test_runs_from_a_store_to_a_picture(tmp_path, capsys) -> None:
    random = np.random.default_rng(3)
    rows = (random.standard_normal((1500, D)) + 0.5).astype(np.float32)
    rows[1400] *= 1000
    store = tmp_path / "a.zarr"
    write_store(store, rows[:1300], rows[1300:], store_dtype="float32")
    values = {"steps": 30, "batch_size": 64, "device": "cpu", "n_latents": 24}
    asked = members(
        parse_axes(["normalize=layer,none"]),
        lambda swept: (
            resolve_fit(
                {"--sweep": swept, "--set": values, "preset paper": preset("paper")}
            ).settings
        ),
    )
    runs = sweep(store, asked, out=tmp_path / "runs", preset="paper").path
    picture = tmp_path / "why.svg"
    assert competition_figures.main([str(picture), str(runs)]) == 0
    found = json.loads((tmp_path / "why.json").read_text())
    assert list(found) == ["normalize=layer", "normalize=none"]
    x = held_out_rows(store)
    x = x[np.sqrt((x**2).sum(1)) <= bound(store, 10.0)]
    assert len(x) == 199
    for name, figures in found.items():
        sae = Autoencoder(runs / name)
        a = sae.encode(x)[:, : sae.w_dec.shape[0]]
        expected = [by_hand(row, row, sae.w_dec)[1] for row in a]
        assert figures["carriers"] == np.median(expected)
        assert figures["active"] == pytest.approx((a > 0).sum(1).mean(), abs=1e-9)
        assert 0 < figures["largest_share"] < 1
    assert ">normalize=layer</text>" in picture.read_text()
    assert capsys.readouterr().out.startswith("| run | active | largest_share | lead | carriers |")
    assert competition_figures.main([str(picture), str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'}: no such folder")
