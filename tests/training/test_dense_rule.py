"""The dense rule against torch's own differentiation, in float64."""

import pytest
import torch
from same_steps import assert_same_loss_and_gradients
from torch.utils.flop_counter import FlopCounterMode

from cpsae.sae.initialization import unit_rows
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training import dense_rule
from cpsae.training.dense_rule import Dense
from cpsae.training.rules import Objective, autograd
from cpsae.training.settings import FitSettings

D, N, B = 7, 24, 33
KINDS = ["relu", "competitive"]


def problem(name, dtype=torch.float64, **settings):
    """A kind, weights as leaves, and rows, of which one fires nothing."""
    chosen = FitSettings(kind=name, **settings)
    plan = RunPlan(D, N, steps=100, mse_reduction=chosen.mse_reduction)
    kind = load_kind(name)(chosen.method, plan)
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.randn(spec.sizes(D, N), generator=generator, dtype=dtype)
        for key, spec in kind.weights.items()
    }
    weights["w_dec"] = unit_rows(weights["w_dec"])
    weights["b_enc"] = -weights["b_enc"].abs() - 0.1
    x = torch.randn(B, D, generator=generator, dtype=dtype)
    x[0] = 0
    return kind, {key: weight.requires_grad_() for key, weight in weights.items()}, x


def assert_same(found, expected, **tolerance):
    assert_same_loss_and_gradients(found, expected, **tolerance)
    for own, other in zip(found.latents, expected.latents, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other, **tolerance)


EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(params=[1, 100, 10**6])
def block(request, monkeypatch):
    """Blocks of one row, of a few with a rest, and of all."""
    monkeypatch.setattr(dense_rule, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"l1_on": "raw"}, {"mse_reduction": "mean"}, {"l1": 0.0}], ids=str
)
@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients(name, settings, center):
    kind, w, x = problem(name, **settings)
    objective = Objective(kind, center)
    found, expected = Dense()(objective, w, x), autograd(objective, w, x)
    fires = expected.latents.raw > 0
    assert center or not fires[0].any()
    assert fires.any() and not fires.all(dim=1).any()
    assert_same(found, expected, **EXACT)


@pytest.mark.parametrize("temperature", [1e-4, 0.05, 30.0])
def test_float32_is_as_near_as_the_reference_in_float32(temperature):
    kind, w, x = problem("competitive", dtype=torch.float32)
    kind.tensors["temperature"].fill_(temperature)
    wide = {name: weight.detach().double().requires_grad_() for name, weight in w.items()}
    exact = autograd(Objective(kind), wide, x.double()).gradients
    found = Dense()(Objective(kind), w, x).gradients
    reference = autograd(Objective(kind), w, x).gradients
    for name, gradient in exact.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        usual = (reference[name] - gradient).norm() / gradient.norm()
        assert error < 2 * usual + 1e-6, name


@pytest.mark.parametrize("frozen", ["w_enc", "w_dec"])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_frozen_has_no_gradient(name, frozen):
    kind, w, x = problem(name)
    w[frozen].requires_grad_(False)
    objective = Objective(kind, center=True)
    found = Dense()(objective, w, x)
    assert frozen not in found.gradients
    assert_same(found, autograd(objective, w, x), **EXACT)


@pytest.mark.parametrize("name", KINDS)
def test_a_prefix_that_grows_and_batches_of_other_lengths(name):
    kind, w, x = problem(name)
    rule = Dense()
    for m, batch in ((9, B), (10, B), (10, 5), (N, B)):
        few = {
            key: (weight.detach()[:m] if kind.weights[key].per_feature else weight.detach())
            for key, weight in w.items()
        }
        few = {key: weight.requires_grad_() for key, weight in few.items()}
        expected = autograd(Objective(kind), few, x[:batch])
        assert_same(rule(Objective(kind), few, x[:batch]), expected, **EXACT)


@pytest.mark.parametrize("name", KINDS)
def test_five_products_and_no_new_memory_for_latents(name):
    kind, w, x = problem(name)
    rule = Dense()
    first = rule(Objective(kind), w, x)
    with FlopCounterMode(display=False) as counter:
        second = rule(Objective(kind), w, x)
    assert counter.get_total_flops() == 5 * 2 * B * D * N
    for own, other in zip(first.latents, second.latents, strict=True):
        assert own is None or own.data_ptr() == other.data_ptr()


@pytest.mark.parametrize(
    ("name", "settings", "bfloat16"),
    [("competitive", {"competition": {"over": "active"}}, False), ("relu", {}, True)],
)
def test_what_it_does_not_serve_is_left_to_the_reference(name, settings, bfloat16):
    kind, w, x = problem(name, dtype=torch.float32, **settings)
    objective = Objective(kind, bfloat16=bfloat16)
    assert_same(Dense()(objective, w, x), autograd(objective, w, x), rtol=0, atol=0)
