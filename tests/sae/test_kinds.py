"""The kinds: what all promise (cpsae.testing), and what each of them computes."""

import numpy as np
import pytest
import reference
import torch
from torch.utils.flop_counter import FlopCounterMode

from cpsae.errors import SettingsError
from cpsae.sae.initialization import initialize
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import kind_names, load_kind
from cpsae.testing.kinds import KindTests
from cpsae.training.rules import Objective, autograd
from cpsae.training.settings import FitSettings

for _name in kind_names():
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (KindTests,), {"name": _name})

D, N = 5, 12


def build(name, **settings):
    chosen = FitSettings(kind=name, **settings)
    return load_kind(name)(chosen.method, RunPlan(D, N, rows=1000))


def problem(rows=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "w_enc": torch.randn(N, D, generator=generator),
        "b_enc": torch.randn(N, generator=generator) * 0.3,
        "w_dec": torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1),
        "b_dec": torch.randn(D, generator=generator) * 0.1,
    }
    return weights, torch.randn(rows, D, generator=generator)


def encoder_outputs(w, x):
    """f (rows, N) in float64 numpy."""
    pre = x.double().numpy() @ w["w_enc"].double().numpy().T + w["b_enc"].double().numpy()
    return np.maximum(pre, 0)


def test_relu():
    w, x = problem()
    latents = build("relu").encode(w, x)
    np.testing.assert_allclose(
        latents.competed.numpy(), encoder_outputs(w, x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("over", ["enabled", "active"])
def test_competitive_equals_the_reference(over):
    kind = build("competitive", competition={"over": over})
    assert kind.figures() == {"temperature": pytest.approx(0.3)}
    (w, x), run = problem(), reference.Run(N, rule="none")
    f = encoder_outputs(w, x)
    for step in range(1, 6):
        expected = np.stack([reference.alpha(row, run.temperature, over) for row in f])
        latents = kind.encode(w, x)
        np.testing.assert_allclose(latents.competed.numpy(), expected, rtol=1e-5, atol=1e-6)
        run.after_update(f)
        kind.after_step(step, torch.tensor(run.rho, dtype=torch.float64), latents)
        assert kind.figures()["temperature"] == pytest.approx(run.temperature, rel=1e-12)


def test_topk_keeps_the_largest():
    (w, x), kind = problem(), build("topk", k=3)
    found = kind.encode(w, x).competed.numpy()
    for row_f, row_a in zip(encoder_outputs(w, x), found, strict=True):
        expected = np.zeros(N)
        expected[np.argsort(-row_f)[:3]] = np.sort(row_f)[::-1][:3]
        np.testing.assert_allclose(row_a, expected, rtol=1e-5, atol=1e-6)
    few = {name: weight[:2] if name != "b_dec" else weight for name, weight in w.items()}
    np.testing.assert_allclose(
        kind.encode(few, x).competed.numpy(), encoder_outputs(w, x)[:, :2], rtol=1e-5, atol=1e-6
    )


def test_batchtopk_in_training_keeps_k_a_row_on_average():
    (w, x), kind = problem(), build("batchtopk", k=3)
    found = kind.encode_batch(w, x).competed.numpy()
    f = encoder_outputs(w, x)
    bound = np.sort(f.ravel())[::-1][3 * 8 - 1]
    np.testing.assert_allclose(found, np.where(f >= bound, f, 0), rtol=1e-5, atol=1e-6)


def test_batchtopk_threshold_is_a_running_mean_of_the_smallest_kept():
    kind, expected = build("batchtopk", k=3), None
    for step in range(1, 30):
        w, x = problem(seed=step)
        smallest = np.sort(encoder_outputs(w, x).ravel())[::-1][3 * 8 - 1]
        expected = smallest if expected is None else 0.99 * expected + 0.01 * smallest
        kind.after_step(step, torch.tensor(0.0), kind.encode_batch(w, x).detached())
    assert kind.constants()["threshold"] == pytest.approx(expected, rel=1e-6)
    w, x = problem(100, seed=99)
    f = encoder_outputs(w, x)
    np.testing.assert_allclose(
        kind.encode(w, x).competed.numpy(), f * (f > expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_k_above_n_is_refused(name):
    with pytest.raises(SettingsError, match=r"k = 13 is above n_latents \(12\)"):
        build(name, k=13)


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("competitive", {"temperature": 0.1, "over": "all"}),
        ("competitive", {"temperature": -1, "over": "enabled"}),
        ("competitive", {"temperature": float("inf"), "over": "enabled"}),
        ("competitive", {"over": "enabled"}),
        ("topk", {"k": 0}),
        ("topk", {}),
        ("batchtopk", {"k": 2, "threshold": float("nan")}),
        ("batchtopk", {"k": 2, "threshold": -0.1}),
    ],
)
def test_malformed_constants(name, constants):
    with pytest.raises((KeyError, TypeError, ValueError)):
        load_kind(name).from_constants(constants, D, N)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"kind": "topk", "l1": 0.1},
            "the kinds competitive, gated, p-anneal, relu, not of",
        ),
        ({"k": 8}, "the kinds batchtopk, .* topk, not of"),
        (
            {"kind": "relu", "temperature": {"min": 0.1}},
            r"temperature is a setting of the kind com",
        ),
        ({"kind": "gated2"}, r"no kind of SAE is called 'gated2': take batchtopk, competitive, "),
    ],
)
def test_settings_of_other_kinds_are_refused_by_name(settings, text):
    with pytest.raises(SettingsError, match=text) as caught:
        FitSettings(**settings)
    assert "\n" not in str(caught.value)


def test_a_key_that_no_kind_has_is_refused():
    with pytest.raises(SettingsError, match="stepz"):
        FitSettings(stepz=3)


@pytest.mark.parametrize("name", kind_names())
def test_products_are_those_that_torch_counts(name):
    d, n, rows = 16, 64, 32
    own = {"k": 4} if "topk" in name else {}
    settings = FitSettings(kind=name, **own)
    kind = load_kind(name)(settings.method, RunPlan(d, n, steps=100, rows=10**6))
    weights = initialize(kind.weights, d, n)
    leaves = {key: torch.nn.Parameter(weight) for key, weight in weights.items()}
    x = torch.randn(rows, d, generator=torch.Generator().manual_seed(0))
    for kind.updates in (0, 95):
        with FlopCounterMode(display=False) as counter:
            autograd(Objective(kind), leaves, x)
        products = counter.get_total_flops() / (2 * rows * d * n)
        # products of prefixes are a little less than one of all
        assert products == pytest.approx(kind.products_now(), abs=0.2)
