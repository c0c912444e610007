"""Gated against its loss (Rajamanoharan et al. 2024, Eq. 8), its gradients written out by hand."""

import numpy as np
import pytest
import torch
from kind_problems import B, D, assert_gradients, build, in_numpy, problem, stepped


def test_loss_and_gradients():
    kind = build("gated", l1=0.3, gate_coefficient=0.7)
    weights, x = problem(kind)
    step = stepped(kind, weights, x)
    w, x = in_numpy(weights, x)
    scale = np.exp(w["r_mag"])
    projected = x @ w["w_enc"].T
    gate, size = projected + w["b_enc"], projected * scale + w["b_mag"]
    on, grown, opened = gate > 0, np.maximum(size, 0), np.maximum(gate, 0)
    a = on * grown
    error = a @ w["w_dec"] + w["b_dec"] - x
    error_gate = opened @ w["w_dec"] + w["b_dec"] - x
    mse, of_gate = (error**2).sum() / B, (error_gate**2).sum() / B
    assert step.loss.parts["mse"].item() == pytest.approx(mse, rel=1e-5)
    assert step.loss.parts["gate"].item() == pytest.approx(of_gate, rel=1e-5)
    assert step.loss.parts["penalty"].item() == pytest.approx(opened.sum() / B, rel=1e-5)
    expected = mse + 0.3 * opened.sum() / B + 0.7 * of_gate
    assert step.loss.total.item() == pytest.approx(expected, rel=1e-5)

    d_hat, d_hat_gate = 2 * error / B, 0.7 * 2 * error_gate / B
    d_size = (d_hat @ w["w_dec"].T) * on * (size > 0)
    d_gate = (d_hat_gate @ w["w_dec"].T + 0.3 / B) * on
    d_projected = d_size * scale + d_gate
    gradients = {
        "w_enc": d_projected.T @ x,
        "b_enc": d_gate.sum(0),
        "b_mag": d_size.sum(0),
        "r_mag": (d_size * projected * scale).sum(0),
        "w_dec": a.T @ d_hat,  # nothing from the gate's reconstruction
        "b_dec": d_hat.sum(0),
    }
    assert_gradients(step, gradients)


def test_features_that_begin_fire_at_their_level():
    kind = build("gated")
    weights, x = problem(kind)
    directions, level = torch.eye(D)[:2], torch.tensor([0.3, 0.6])
    kind.begin(weights, torch.tensor([4, 9]), directions, level)
    found = kind.encode(weights, x).competed[:, [4, 9]]
    torch.testing.assert_close(found, (x @ directions.T - level).relu())
