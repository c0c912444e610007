"""BatchTopK that is inhibited when it is used: trained as BatchTopK, used as in plain numpy."""

import json

import numpy as np
import pytest
import torch
from kind_problems import B, D, N, build, in_numpy, problem, stepped

ETA, K = 0.4, 3
RHO = torch.zeros((), dtype=torch.float64)


def make(updates, **settings):
    kind = build("lca-batchtopk", k=K, inhibition=ETA, **settings)
    kind.updates = updates  # of 100: the second threshold is measured from 90 on
    return kind, *problem(kind)


def largest(f):
    """The batch's K * B largest of f, the others 0."""
    return np.where(f >= np.sort(f.ravel())[-K * B], f, 0)


def inhibited(w, x, first):
    rest = x - first @ w["w_dec"] - w["b_dec"]
    z = x @ w["w_enc"].T + w["b_enc"]
    return np.maximum(z + ETA * rest @ w["w_dec"].T, 0)


@pytest.mark.parametrize("updates", [0, 89, 90, 99])
def test_it_is_trained_as_batchtopk(updates):
    kind, weights, x = make(updates)
    plain = build("batchtopk", k=K)
    found, expected = stepped(kind, weights, x), stepped(plain, weights, x)
    assert torch.equal(found.loss.total, expected.loss.total)
    for name, gradient in expected.gradients.items():
        assert torch.equal(found.gradients[name], gradient), name
    assert kind.products_now() == (5 if updates < 90 else 7)


def test_thresholds_are_the_smallest_that_a_batch_keeps():
    kind, weights, x = make(89)
    w, rows = in_numpy(weights, x)
    first = largest(np.maximum(rows @ w["w_enc"].T + w["b_enc"], 0))
    second = largest(inhibited(w, rows, first))
    assert not np.array_equal(first > 0, second > 0), "the second choice is the first one"
    kind.after_step(90, RHO, kind.encode_batch(weights, x).detached())
    assert kind.constants()["first_threshold"] == pytest.approx(first[first > 0].min(), rel=1e-5)
    assert kind.constants()["threshold"] == 0
    kind.updates = 90
    kind.after_step(91, RHO, kind.encode_batch(weights, x).detached())
    assert kind.constants()["first_threshold"] == pytest.approx(first[first > 0].min(), rel=1e-5)
    assert kind.constants()["threshold"] == pytest.approx(second[second > 0].min(), rel=1e-5)


def used(threshold):
    kind, weights, x = make(0)
    constants = {"k": K, "inhibition": ETA, "first_threshold": 0.5, "threshold": threshold}
    fixed = type(kind).from_constants(json.loads(json.dumps(constants)), D, N)
    return fixed.encode(weights, x), *in_numpy(weights, x)


def test_inference_chooses_twice():
    found, w, x = used(threshold=0.7)
    f = np.maximum(x @ w["w_enc"].T + w["b_enc"], 0)
    rest = inhibited(w, x, np.where(f > 0.5, f, 0))
    np.testing.assert_allclose(found.competed, np.where(rest > 0.7, rest, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.raw, f, rtol=1e-4, atol=1e-5)


def test_before_the_second_threshold_is_known_it_is_used_as_batchtopk():
    found, w, x = used(threshold=0.0)
    f = np.maximum(x @ w["w_enc"].T + w["b_enc"], 0)
    np.testing.assert_allclose(found.competed, np.where(f > 0.5, f, 0), rtol=1e-4, atol=1e-5)


def test_negative_thresholds_are_refused():
    for name in ("first_threshold", "threshold"):
        constants = {"k": K, "inhibition": ETA, "first_threshold": 0.1, "threshold": 0.1, name: -1}
        with pytest.raises(ValueError, match=f"{name} is -1"):
            type(make(0)[0]).from_constants(constants, D, N)
