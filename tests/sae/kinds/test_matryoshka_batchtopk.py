"""Matryoshka BatchTopK: the mean of the errors of nested dictionaries, each reconstructed anew."""

import numpy as np
import pytest
import torch
from kind_problems import B, N, build, in_numpy, problem, stepped

from cpsae.errors import SettingsError
from cpsae.sae.kind import prefix


@pytest.mark.parametrize("enabled", [N, 9, 3])
def test_loss_and_decoder_gradient(enabled):
    kind = build("matryoshka-batchtopk", k=2, prefixes=(0.15, 0.3, 0.6))  # 2, 4 and 8 of 14
    weights, x = problem(kind)
    weights = prefix(kind.weights, weights, enabled)
    step = stepped(kind, weights, x)
    w, x = in_numpy(weights, x)
    a = step.latents.competed.double().numpy()
    assert (a > 0).sum() <= 2 * B
    sizes = [size for size in (2, 4, 8) if size < enabled] + [enabled]
    errors = [a[:, :m] @ w["w_dec"][:m] + w["b_dec"] - x for m in sizes]
    squares = [(error**2).sum() / B for error in errors]
    assert step.loss.parts["mse"].item() == pytest.approx(squares[-1], rel=1e-5)
    assert step.loss.parts["nested"].item() == pytest.approx(np.mean(squares), rel=1e-5)
    assert step.loss.total.item() == pytest.approx(np.mean(squares), rel=1e-5)
    expected = np.zeros_like(w["w_dec"])
    for m, error in zip(sizes, errors, strict=True):
        expected[:m] += a[:, :m].T @ (2 * error / B) / len(sizes)
    np.testing.assert_allclose(step.gradients["w_dec"].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefixes", [(0.5, 0.2), (0.2, 0.2), (0.0, 0.5), (0.5, 1.0), ()])
def test_prefixes_that_do_not_rise_are_refused(prefixes):
    with pytest.raises(SettingsError, match="prefixes"):
        build("matryoshka-batchtopk", k=2, prefixes=prefixes)


def test_dead_latents_are_revived_as_in_batchtopk():
    kind = build("matryoshka-batchtopk", k=2, dead_after=B)
    weights, x = problem(kind)
    kind.tensors["rows_since_fired"][5] = B
    kind.updates = 10
    other = build("batchtopk", k=2, dead_after=B)
    other.tensors["rows_since_fired"][5] = B
    other.updates = 10
    found, expected = stepped(kind, weights, x).loss, stepped(other, weights, x).loss
    assert expected.parts["aux"] > 0
    assert found.parts["aux"].item() == pytest.approx(expected.parts["aux"].item(), rel=1e-6)
    assert found.total - found.parts["nested"] == pytest.approx(
        (expected.total - expected.parts["mse"]).item(), rel=1e-3
    )
    assert torch.equal(
        kind.encode_batch(weights, x).competed, other.encode_batch(weights, x).competed
    )
