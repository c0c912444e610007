"""What rows add to the metrics, and what the sums come to, against two passes in float64."""

import math

import numpy as np
import pytest
import torch

from cpsae.sae.metrics import COLUMNS, FiringCounts, decoder_cosine, figures, row_values


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


def result(x, x_hat, a):
    mean = x.astype(np.float64).mean(0)
    values = row_values(*(torch.from_numpy(v) for v in (x, x_hat, a, mean)))
    assert values.shape == (len(x), len(COLUMNS)) and values.dtype == torch.float64
    return {k: float(v) for k, v in figures(values.numpy().sum(0), x.shape[1]).items()}


def counts(a, counted=None, size=37):
    found = FiringCounts(a.shape[1])
    counted = np.ones(len(a), dtype=bool) if counted is None else counted
    for start in range(0, len(a), size):
        here = slice(start, start + size)
        found.update(torch.from_numpy(a[here]) != 0, counted[here])
    return found


def brute_force(x, x_hat, a):
    x, x_hat, a = (v.astype(np.float64) for v in (x, x_hat, a))
    cosines = [r @ s / np.linalg.norm(r) / np.linalg.norm(s) for r, s in zip(x, x_hat, strict=True)]
    return {
        "l0": (a != 0).sum(1).mean(),
        "l0_eff": np.mean([(row > 0.01 * row.max()).sum() for row in a]),
        "l1": np.abs(a).sum(1).mean(),
        "explained_variance": 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "mse": ((x - x_hat) ** 2).mean(),
        "cosine": np.mean(cosines),
        "relative_bias": (x_hat**2).sum() / (x * x_hat).sum(),
    }


@pytest.mark.parametrize("offset", [0.0, 50.0, 1e4])
def test_equal_two_passes_in_float64(offset):
    given = batches(offset)
    found, expected = result(*given), brute_force(*given)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


def test_figures_of_many_sums_at_once():
    x, x_hat, a = batches()
    values = row_values(*(torch.from_numpy(v) for v in (x, x_hat, a, np.zeros(13)))).numpy()
    both = figures(np.stack([values[:100].sum(0), values[100:].sum(0)]), 13)
    for number, part in enumerate((values[:100], values[100:])):
        for name, value in figures(part.sum(0), 13).items():
            assert both[name][number] == value


def test_firing_rates_and_density():
    _, _, a = batches()
    counted = np.arange(len(a)) % 3 > 0
    found, fired = counts(a, counted), (a[counted] != 0).mean(0)
    np.testing.assert_allclose(found.rates.numpy(), fired)
    assert found.counts.tolist() == (a[counted] != 0).sum(0).tolist()
    expected = {"dead": (fired == 0).mean(), "dense": (fired > 0.1).mean()}
    expected["activation_variance"] = fired.var()
    assert found.result() == {name: pytest.approx(value) for name, value in expected.items()}
    edges, histogram = found.density(bins=30, lowest=-3.0)
    assert (len(edges), len(histogram), sum(histogram)) == (31, 30, 20)  # the dead one is in no bin
    assert (edges[0], edges[-1]) == (-3.0, 0.0)
    np.testing.assert_array_equal(
        histogram, np.histogram(np.log10(fired[fired > 0]), np.array(edges))[0]
    )


def test_rates_at_both_ends_are_counted():
    a = np.array([[1.0, 0.0]] * 10_000 + [[1.0, 1.0]])
    assert counts(a).density(bins=4, lowest=-2.0)[1] == [1, 0, 0, 1]


def test_nothing_to_measure():
    assert all(math.isnan(value) for value in figures(np.zeros(len(COLUMNS)), 3).values())
    assert all(math.isnan(value) for value in FiringCounts(4).result().values())
    zero = np.zeros((5, 3), np.float32)
    found = result(zero, zero, zero)
    assert found["mse"] == found["cosine"] == 0
    assert math.isnan(found["explained_variance"])
    assert math.isnan(found["relative_bias"])


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
