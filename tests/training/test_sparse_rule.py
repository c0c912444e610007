"""The sparse rule against torch's own differentiation of dense products, in float64."""

import pytest
import torch
from same_steps import assert_same_loss_and_gradients
from torch.utils.flop_counter import FlopCounterMode

from cpsae.sae.initialization import unit_rows
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training import sparse_rule
from cpsae.training.rules import Objective, autograd
from cpsae.training.settings import FitSettings
from cpsae.training.sparse_rule import sparse

D, N, B = 7, 24, 32
KINDS = ["topk", "batchtopk", "lca-batchtopk", "matryoshka-batchtopk", "jumprelu"]


@pytest.fixture(autouse=True)
def whatever_is_kept(monkeypatch):
    """So few features keep a large share of latents."""
    monkeypatch.setattr(sparse_rule, "PAYS_BELOW", 0.8)


def problem(name, seed=0, dtype=torch.float64, **settings):
    """A kind half-way through a run, weights as leaves, and rows, some of which fire nothing."""
    if name == "jumprelu":
        settings = {"target_l0": 3, "bandwidth": 0.3, **settings}
    else:
        settings = {"k": 3, **settings}
    chosen = FitSettings(kind=name, **settings)
    kind = load_kind(name)(chosen.method, RunPlan(D, N, steps=100, rows=100 * B))
    kind.updates = 50
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: torch.randn(spec.sizes(D, N), generator=generator, dtype=dtype)
        for key, spec in kind.weights.items()
    }
    weights["w_dec"] = unit_rows(weights["w_dec"])
    weights["b_enc"] -= 1
    x = torch.randn(B, D, generator=generator, dtype=dtype)
    x[:3] *= 1e-3
    return kind, {key: weight.requires_grad_() for key, weight in weights.items()}, x


def assert_same(found, expected, **tolerance):
    assert_same_loss_and_gradients(found, expected, **tolerance)
    for name, own, other in zip(
        found.latents._fields, found.latents, expected.latents, strict=True
    ):
        if name != "entries":
            assert (own is None) == (other is None) and (own is None or torch.equal(own, other))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dead", [0, 5])
@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients(name, dead, center):
    kind, w, x = problem(name, aux_k=2, dead_after=B)
    kind.tensors["rows_since_fired"][:dead] = 10 * B
    objective = Objective(kind, center)
    found, expected = sparse(objective, w, x), autograd(objective, w, x)
    assert (float(expected.loss.parts["aux"]) > 0) == (dead > 0)
    assert_same(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("frozen", ["w_enc", "w_dec"])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_frozen_has_no_gradient(name, frozen):
    kind, w, x = problem(name)
    w[frozen].requires_grad_(False)
    objective = Objective(kind, center=True)
    found = sparse(objective, w, x)
    assert frozen not in found.gradients
    assert_same(found, autograd(objective, w, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_an_enabled_prefix(name):
    kind, w, x = problem(name)
    few = {
        key: (weight.detach()[:9] if spec.per_feature else weight.detach()).requires_grad_()
        for (key, weight), spec in zip(w.items(), kind.weights.values(), strict=True)
    }
    assert_same(
        sparse(Objective(kind), few, x), autograd(Objective(kind), few, x), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("input_gradient", [False, True])
def test_thresholds_that_are_near_and_below_0(input_gradient):
    kind, w, x = problem("jumprelu", input_gradient=input_gradient)
    with torch.no_grad():
        w["threshold"].copy_(torch.linspace(-0.5, 1.5, N))
    objective = Objective(kind)
    found, expected = sparse(objective, w, x), autograd(objective, w, x)
    assert (expected.gradients["threshold"] != 0).sum() > N // 2
    entries, a = found.latents.entries, found.latents.competed.flatten()
    assert entries is not None and (a[entries] == 0).any(), "near to its threshold from below"
    assert_same(found, expected, rtol=1e-10, atol=1e-12)


def test_a_batch_with_many_entries_is_left_to_the_reference(monkeypatch):
    kind, w, x = problem("jumprelu")
    monkeypatch.setattr(sparse_rule, "PAYS_BELOW", 0.01)
    objective = Objective(kind)
    found = sparse(objective, w, x)
    assert found.latents.entries is None
    assert_same(found, autograd(objective, w, x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_in_bfloat16_sums_are_float32(name):
    kind, w, x = problem(name, dtype=torch.float32)
    objective = Objective(kind, bfloat16=True)
    found, expected = sparse(objective, w, x), autograd(objective, w, x)
    for key, gradient in expected.gradients.items():
        assert found.gradients[key].dtype == torch.float32
        near = (found.gradients[key] - gradient).norm() / gradient.norm()
        assert near < 0.02, key


def test_a_loss_on_all_latents_is_left_to_the_reference(monkeypatch):
    kind, w, x = problem("batchtopk")
    own = type(kind).loss

    def with_l1(self, *arguments):
        loss = own(self, *arguments)
        return loss._replace(total=loss.total + arguments[2].raw.sum())

    monkeypatch.setattr(type(kind), "loss", with_l1)
    objective = Objective(kind)
    assert_same(sparse(objective, w, x), autograd(objective, w, x), rtol=0, atol=0)


def test_a_kind_that_lists_no_entries_is_left_to_the_reference():
    kind, w, x = problem("topk")
    objective = Objective(load_kind("relu")(FitSettings(kind="relu").method, kind.plan))
    assert_same(sparse(objective, w, x), autograd(objective, w, x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_the_encoder_is_the_only_dense_product(name):
    kind, w, x = problem(name)
    with FlopCounterMode(display=False) as counter:
        sparse(Objective(kind), w, x)
    assert counter.get_total_flops() == 2 * B * D * N
