"""The evaluator of pipelines/peers against numpy and by hand."""

import math

import numpy as np
import pytest
import torch
from equal_l0 import ExplainedVariance, at_l0, keep_of_batch, keep_of_row


def test_explained_variance_is_numpys_in_any_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 8, generator=generator) + 100
    x_hat = x + torch.randn(50, 8, generator=generator)
    a = torch.randn(50, 6, generator=generator).relu()
    found = ExplainedVariance()
    for start, end in ((0, 7), (7, 20), (20, 50)):
        found.update(x[start:end], x_hat[start:end], a[start:end])
    exact, error = x.double().numpy(), (x.double() - x_hat.double()).numpy()
    expected = 1 - (error**2).sum() / ((exact - exact.mean(0)) ** 2).sum()
    l0, variance = found.result()
    assert l0 == pytest.approx(np.count_nonzero(a.numpy()) / 50)
    assert variance == pytest.approx(expected, abs=1e-9)


def test_rows_and_batches_keep_their_largest() -> None:
    f = torch.tensor([[3.0, 1.0, 2.0, 0.0], [9.0, 8.0, 7.0, 0.5]])
    assert keep_of_row(f, 2).tolist() == [[3, 0, 2, 0], [9, 8, 0, 0]]
    assert keep_of_batch(f, 2).tolist() == [[3, 0, 0, 0], [9, 8, 7, 0]]


def test_a_curve_is_read_between_its_runs_and_not_beyond() -> None:
    points = [(40.0, 0.8), (10.0, 0.6)]
    assert at_l0(points, 20) == pytest.approx(0.7)  # halfway in log L0
    assert at_l0(points, 10) == pytest.approx(0.6)
    expected = 0.6 + 0.2 * math.log(3) / math.log(4)
    assert at_l0(points, 30) == pytest.approx(expected)
    assert at_l0(points, 41) is None
    assert at_l0(points[:1], 40) is None
