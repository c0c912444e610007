import json
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch

from cpsae.config import FitSettings
from cpsae.config.training import kind_names
from cpsae.errors import SettingsError
from cpsae.sae.kind import Kind
from cpsae.sae.kinds import load_kind


def build(name, n=12, anneal_steps=2000, **settings):
    settings = FitSettings(kind=name, **{"k": 3, **settings})
    return load_kind(name).from_settings(settings, n=n, anneal_steps=anneal_steps)


def pre(rows=8, n=12, seed=0):
    return torch.randn(rows, n, generator=torch.Generator().manual_seed(seed)) + 0.5


@pytest.mark.parametrize("name", kind_names())
def test_what_every_kind_promises(name):
    kind = build(name)
    assert isinstance(kind, Kind)
    z = pre().requires_grad_(True)
    raw, competed = kind.train()(z)
    assert torch.equal(raw, z.relu())
    assert competed.shape == raw.shape
    assert ((competed >= 0) & (competed <= raw)).all()
    competed.sum().backward()
    assert torch.isfinite(z.grad).all()
    kind.after_step(1, torch.tensor(0.5, dtype=torch.float64))

    constants = json.loads(json.dumps(kind.constants()))
    fixed = load_kind(name).from_constants(constants).eval()
    kind.eval()
    with torch.no_grad():
        assert torch.equal(fixed(pre()).competed, kind(pre()).competed)
        one_by_one = torch.stack([fixed(row).competed for row in pre()])
        torch.testing.assert_close(one_by_one, fixed(pre()).competed)
        assert fixed(pre(24).view(2, 3, 4, 12)).competed.shape == (2, 3, 4, 12)
    assert fixed.constants() == constants


@pytest.mark.parametrize("name", kind_names())
def test_resuming_through_json_is_exact(name):
    straight, broken = build(name).train(), build(name).train()
    for step in range(1, 12):
        for kind in (straight, broken):
            kind(pre(seed=step))
            kind.after_step(step, torch.tensor(1 / step, dtype=torch.float64))
        saved, broken = json.dumps(broken.running_state()), build(name).train()
        broken.load_running_state(json.loads(saved))
    assert straight.running_state() == broken.running_state()
    assert straight.constants() == broken.constants()


def test_relu():
    kind = build("relu")
    assert torch.equal(kind(pre()).competed, pre().relu())
    assert kind.temperature is None


@pytest.mark.parametrize("over", ["enabled", "active"])
def test_competitive_equals_the_reference(over):
    kind = build("competitive", competition={"over": over})
    assert kind.temperature == 0.3
    generator = np.random.default_rng(1)
    w, b = generator.standard_normal((12, 5)), generator.standard_normal(12)
    x = generator.standard_normal((6, 5))
    run = reference.Run(12, rule="none")
    for step in range(1, 6):
        f = np.stack([reference.encoder(w, b, row) for row in x])
        expected = np.stack([reference.alpha(row, run.temperature, over) for row in f])
        found = kind(torch.from_numpy(x @ w.T + b).float()).competed
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
        run.after_update(f)
        kind.after_step(step, run.rho)
        assert kind.temperature == pytest.approx(run.temperature, rel=1e-12)


def test_casting_leaves_the_temperature_exact():
    kind = build("competitive")
    kind.after_step(1, 0.7)
    before = kind.temperature
    assert kind.to(torch.bfloat16).to("cpu").temperature == before


def test_topk_keeps_the_largest():
    kind, f = build("topk"), pre().relu()
    a = kind(pre()).competed
    for row_f, row_a in zip(f.numpy(), a.numpy(), strict=True):
        kept = np.argsort(-row_f)[:3]
        expected = np.zeros(12, dtype=np.float32)
        expected[kept] = row_f[kept]
        np.testing.assert_array_equal(row_a, expected)
    few = kind(pre(4, 2)).competed
    assert torch.equal(few, pre(4, 2).relu())


def test_batchtopk_in_training_keeps_k_a_row_on_average():
    kind, f = build("batchtopk").train(), pre().relu()
    a = kind(pre()).competed
    kept = np.sort(f.numpy().ravel())[::-1][: 3 * 8]
    assert (a != 0).sum() == 24
    np.testing.assert_array_equal(np.sort(a.numpy()[a.numpy() != 0])[::-1], kept)


def test_batchtopk_threshold_is_a_running_mean_of_the_smallest_kept():
    kind, expected = build("batchtopk").train(), None
    for step in range(1, 30):
        a = kind(pre(seed=step)).competed
        smallest = a[a > 0].min().item()
        expected = smallest if expected is None else 0.99 * expected + 0.01 * smallest
        kind.after_step(step, 0.0)
        kind.after_step(step, 0.0)  # a second call without a batch between changes nothing
    assert kind.constants()["threshold"] == pytest.approx(expected, rel=1e-9)
    kind.eval()
    f = pre(100, seed=99).relu()
    torch.testing.assert_close(kind(pre(100, seed=99)).competed, f * (f > expected))
    kind.after_step(30, 0.0)
    assert kind.constants()["threshold"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_k_above_n_is_refused(name):
    with pytest.raises(SettingsError, match=r"k = 13 is above n_latents \(12\)"):
        build(name, k=13)


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("competitive", {"temperature": 0.1, "over": "all"}),
        ("competitive", {"temperature": -1, "over": "enabled"}),
        ("competitive", {"over": "enabled"}),
        ("topk", {"k": 0}),
        ("topk", {}),
        ("batchtopk", {"k": 2, "threshold": float("nan")}),
    ],
)
def test_malformed_constants(name, constants):
    with pytest.raises((KeyError, TypeError, ValueError)):
        load_kind(name).from_constants(constants)


def test_unknown_kind():
    with pytest.raises(SettingsError, match="no kind of SAE is called 'nope': take batchtopk"):
        load_kind("nope")


def test_packages_import_no_torch():
    code = "import sys, cpsae.sae, cpsae.sae.kinds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
