"""JumpReLU against its pseudo-derivatives (Rajamanoharan et al. 2024, Eq. 11-12), in loops."""

import numpy as np
import pytest
import torch
from kind_problems import B, D, N, assert_gradients, build, in_numpy, problem, stepped

WIDTH = 0.2


def make(**settings):
    kind = build("jumprelu", bandwidth=WIDTH, target_l0=3, **settings)
    weights, x = problem(kind)
    weights["threshold"] = weights["threshold"].abs()
    kind.updates = 1000
    return kind, weights, x


def by_hand(weights, x, through):
    """Loss, L0 and gradients with mse + 2 * (L0 / 3 - 1)^2."""
    w, x = in_numpy(weights, x)
    pre = x @ w["w_enc"].T + w["b_enc"]
    gate = (pre > w["threshold"]).astype(float)
    a = pre * gate
    error = a @ w["w_dec"] + w["b_dec"] - x
    l0 = gate.sum() / B
    d_l0 = 2 * 2 * (l0 / 3 - 1) / 3
    d_hat = 2 * error / B
    d_a = d_hat @ w["w_dec"].T
    d_pre, d_threshold = d_a * gate, np.zeros(N)
    for row in range(B):
        for i in range(N):
            if abs(pre[row, i] - w["threshold"][i]) < WIDTH / 2:
                slope = (w["threshold"][i] * d_a[row, i] + d_l0 / B) / WIDTH
                d_threshold[i] -= slope
                d_pre[row, i] += slope if through else 0
    gradients = {
        "w_enc": d_pre.T @ x,
        "b_enc": d_pre.sum(0),
        "w_dec": a.T @ d_hat,
        "b_dec": d_hat.sum(0),
        "threshold": d_threshold,
    }
    return (error**2).sum() / B + 2 * (l0 / 3 - 1) ** 2, l0, gradients


@pytest.mark.parametrize("through", [True, False])
def test_loss_and_gradients(through):
    kind, weights, x = make(input_gradient=through, l0_coefficient=2.0)
    step = stepped(kind, weights, x)
    loss, l0, gradients = by_hand(weights, x, through)
    assert step.loss.total.item() == pytest.approx(loss, rel=1e-5)
    assert (step.latents.competed > 0).sum().item() / B == pytest.approx(l0)
    assert_gradients(step, gradients)
    assert np.abs(gradients["threshold"]).max() > 0.01, "no entry was near its threshold"


def test_training_and_inference_keep_the_same():
    kind, weights, x = make()
    assert torch.equal(kind.encode(weights, x).competed, kind.encode_batch(weights, x).competed)


def test_a_threshold_below_0_is_as_one_of_0():
    kind, weights, x = make()
    weights["threshold"] = -weights["threshold"]
    zero = {**weights, "threshold": torch.zeros(N)}
    for encode in (kind.encode, kind.encode_batch):
        found = encode(weights, x)
        assert torch.equal(found.competed, encode(zero, x).competed)
        assert (found.competed >= 0).all()
    gate = kind.encode_batch(weights, x).gate
    assert torch.equal(gate, (found.competed > 0).float())


def test_the_penalty_rises_with_the_warm_up():
    kind, weights, x = make(l0_warmup_steps=1000)  # scaled to 10
    penalty = stepped(kind, weights, x).loss.parts["penalty"]
    for updates, share in [(0, 0.0), (5, 0.5), (10, 1.0), (50, 1.0)]:
        kind.updates = updates
        loss = stepped(kind, weights, x).loss
        added = loss.total - loss.parts["mse"] - loss.parts["aux"] / 32
        assert added.item() == pytest.approx(share * penalty.item(), rel=1e-4, abs=1e-6)
    assert kind.schedule_lengths()["l0_warmup_steps"] == 10


def test_features_that_begin_fire_at_their_level():
    kind, weights, x = make()
    directions = torch.eye(D)[:2]
    level = torch.tensor([0.3, 0.6])
    kind.begin(weights, torch.tensor([4, 9]), directions, level)
    fires = kind.encode(weights, x).competed[:, [4, 9]] > 0
    assert torch.equal(fires, x @ directions.T > level)
