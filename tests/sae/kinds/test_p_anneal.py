"""P-anneal: the exponent over a run, a penalty that keeps its size, gradients by hand."""

import numpy as np
import pytest
import torch
from kind_problems import B, assert_gradients, build, in_numpy, problem, stepped

E = 1e-3


def test_loss_and_gradients_at_a_low_exponent():
    kind = build("p-anneal", l1=0.2)
    kind.updates = 99
    kind.tensors["weight"].fill_(0.5)
    weights, x = problem(kind)
    step = stepped(kind, weights, x)
    w, x = in_numpy(weights, x)
    f = np.maximum(x @ w["w_enc"].T + w["b_enc"], 0)
    error = f @ w["w_dec"] + w["b_dec"] - x
    penalty = ((f + E) ** 0.2 - E**0.2).sum() / B
    expected = (error**2).sum() / B + 0.5 * penalty
    assert step.loss.total.item() == pytest.approx(expected, rel=1e-5)
    d_hat = 2 * error / B
    d_f = (d_hat @ w["w_dec"].T + 0.5 * 0.2 * (f + E) ** -0.8 / B) * (f > 0)
    assert_gradients(
        step,
        {
            "w_enc": d_f.T @ x,
            "b_enc": d_f.sum(0),
            "w_dec": f.T @ d_hat,
            "b_dec": d_hat.sum(0),
        },
    )


def test_at_first_it_is_the_l1_norm():
    kind = build("p-anneal", l1=0.2)
    weights, x = problem(kind)
    latents, loss = (step := stepped(kind, weights, x)).latents, step.loss
    l1 = latents.competed.sum().item() / B
    assert loss.parts["penalty"].item() == pytest.approx(l1, rel=1e-4)
    assert loss.total.item() == pytest.approx(loss.parts["mse"].item() + 0.2 * l1, rel=1e-4)


def test_the_exponent_falls_linearly_after_its_beginning():
    kind = build("p-anneal", steps=101, anneal_from=0.2, p_end=0.2)
    assert [kind.p(updates) for updates in (0, 20)] == [1.0, 1.0]
    assert kind.p(60) == pytest.approx(0.6)
    assert kind.p(100) == pytest.approx(0.2)


def test_the_weighted_penalty_of_a_batch_does_not_change_with_the_exponent():
    kind = build("p-anneal", steps=50, l1=0.2, anneal_from=0.0)
    weights, x = problem(kind)
    rho = torch.zeros((), dtype=torch.float64)
    for step in range(1, 50):
        found = stepped(kind, weights, x)
        weighted = float(kind.tensors["weight"]) * found.loss.parts["penalty"].item()
        assert weighted == pytest.approx(0.2 * found.latents.competed.sum().item() / B, rel=1e-3)
        kind.after_step(step, rho, found.latents)
        kind.updates = step
    assert kind.p(kind.updates) < 0.25


def test_a_batch_in_which_nothing_fires_leaves_the_weight_alone():
    kind = build("p-anneal", steps=10, anneal_from=0.0)
    weights, x = problem(kind)
    weights["b_enc"] -= 100
    found = stepped(kind, weights, x)
    kind.after_step(5, torch.zeros(()), found.latents)
    assert float(kind.tensors["weight"]) == pytest.approx(0.04)
    assert found.loss.total.isfinite()


def test_without_annealing_neither_exponent_nor_weight_ever_changes():
    """Also after the last update: such a run may be given more steps."""
    kind = build("p-anneal", steps=5, anneal_from=1.0)
    weights, x = problem(kind)
    for step in range(1, 6):
        kind.after_step(step, torch.zeros(()), stepped(kind, weights, x).latents)
        kind.updates = step
        assert kind.p(step) == 1
    assert float(kind.tensors["weight"]) == 0.04
