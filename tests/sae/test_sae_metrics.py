import math

import numpy as np
import pytest
import torch

from cpsae.sae.metrics import LatentMetrics, Metrics, ReconstructionMetrics, decoder_cosine


def batches(offset=0.0, rows=300, d=13, n=21, seed=0):
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal((rows, d)) * 3 + offset).astype(np.float32)
    x_hat = (x + generator.standard_normal((rows, d)) * 1.5).astype(np.float32)
    a = np.maximum(generator.standard_normal((rows, n)) - 1, 0).astype(np.float32)
    a[:, 4] = 0  # dead
    a[0] = 0  # a row that fires nothing
    a[1, :] = 0
    a[1, 3], a[1, 5] = 100.0, 0.5  # not effective
    return x, x_hat, a


def run(x, x_hat, a, size=37):
    metrics = Metrics(a.shape[1])
    for start in range(0, len(x), size):
        parts = (torch.from_numpy(v[start : start + size]) for v in (x, x_hat, a))
        metrics.update(*parts)
    return metrics


def brute_force(x, x_hat, a):
    x, x_hat, a = (v.astype(np.float64) for v in (x, x_hat, a))
    fired = (a != 0).mean(0)
    cosines = [r @ s / np.linalg.norm(r) / np.linalg.norm(s) for r, s in zip(x, x_hat, strict=True)]
    return {
        "l0": (a != 0).sum(1).mean(),
        "l0_eff": np.mean([(row > 0.01 * row.max()).sum() for row in a]),
        "l1": np.abs(a).sum(1).mean(),
        "dead": (fired == 0).mean(),
        "dense": (fired > 0.1).mean(),
        "activation_variance": fired.var(),
        "explained_variance": 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "mse": ((x - x_hat) ** 2).mean(),
        "cosine": np.mean(cosines),
        "relative_bias": (x_hat**2).sum() / (x * x_hat).sum(),
    }


@pytest.mark.parametrize("offset", [0.0, 50.0, 1e4])
@pytest.mark.parametrize("size", [1, 37, 1000])
def test_equal_two_passes_in_float64(offset, size):
    given = batches(offset)
    found, expected = run(*given, size=size).result(), brute_force(*given)  # type: ignore[misc]
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


def test_a_far_first_row_does_no_harm():
    x, x_hat, a = batches()
    x[0] += 2000
    found = run(x, x_hat, a, size=1).result()["explained_variance"]
    assert found == pytest.approx(brute_force(x, x_hat, a)["explained_variance"], abs=1e-9)


def test_firing_rates_and_density():
    x, x_hat, a = batches()
    latents = run(x, x_hat, a).latents
    np.testing.assert_allclose(latents.firing_rates.numpy(), (a != 0).mean(0))
    assert latents.firing_counts.tolist() == (a != 0).sum(0).tolist()
    edges, counts = latents.density(bins=30, lowest=-3.0)
    assert (len(edges), len(counts), sum(counts)) == (31, 30, 20)  # the dead one is in no bin
    assert (edges[0], edges[-1]) == (-3.0, 0.0)
    logs = np.log10((a != 0).mean(0)[(a != 0).any(0)])
    np.testing.assert_array_equal(counts, np.histogram(logs, np.array(edges))[0])


def test_rates_at_both_ends_are_counted():
    latents = LatentMetrics(2)
    for _ in range(100):
        latents.update(torch.tensor([[1.0, 0.0]] * 100))
    latents.update(torch.tensor([[1.0, 1.0]]))
    assert latents.density(bins=4, lowest=-2.0)[1] == [1, 0, 0, 1]


def test_nothing_to_measure():
    empty = Metrics(4)
    empty.update(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4))
    assert all(math.isnan(value) for value in empty.result().values())
    zero = ReconstructionMetrics()
    zero.update(torch.zeros(5, 3), torch.zeros(5, 3))
    assert zero.result()["mse"] == zero.result()["cosine"] == 0
    assert math.isnan(zero.result()["explained_variance"])
    assert math.isnan(zero.result()["relative_bias"])


def test_decoder_cosine():
    w = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    w[7] = 3 * w[2]
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    for enabled in (30, 9):
        cosines = unit[:enabled] @ unit[:enabled].T
        np.fill_diagonal(cosines, -2)
        expected = cosines.max(1).mean()
        for rows in (1, 4, 1024):
            found = decoder_cosine(torch.from_numpy(w), enabled, rows)
            assert found == pytest.approx(expected, abs=1e-6)
    assert math.isnan(decoder_cosine(torch.from_numpy(w), 1))
    assert decoder_cosine(torch.ones(4, 6)) == pytest.approx(1, abs=1e-6)
