"""Intervals against a plain loop of resampling, and where they have to be what they are."""

import numpy as np
import pytest

from cpsae.evaluation import bootstrap
from cpsae.evaluation.bootstrap import MOST_UNITS, intervals, neighbours


def sums_of(units=40, seed=0):
    """Columns: rows, error, spread."""
    random = np.random.default_rng(seed)
    rows = random.integers(1, 9, units).astype(float)
    return np.stack([rows, rows * random.exponential(1, units), rows * 3 + 1], axis=1)


def figures(sums):
    return {"mean": sums[..., 1] / sums[..., 0], "ratio": 1 - sums[..., 1] / sums[..., 2]}


def test_a_plain_loop_of_resampling_gives_the_same():
    sums = sums_of()
    random = np.random.default_rng(0)
    means, ratios = [], []
    for _ in range(1000):
        drawn = [sums[number] for number in random.integers(len(sums), size=len(sums))]
        rows, error, spread = (sum(row[column] for row in drawn) for column in range(3))
        means.append(error / rows)
        ratios.append(1 - error / spread)
    found = intervals(sums, figures)
    assert found["mean"] == pytest.approx([np.percentile(means, q) for q in (2.5, 97.5)], rel=1e-12)
    assert found["ratio"] == pytest.approx([np.percentile(ratios, q) for q in (2.5, 97.5)])
    assert found["mean"][0] < figures(sums.sum(0))["mean"] < found["mean"][1]


def test_the_memory_of_a_block_does_not_matter(monkeypatch):
    whole = intervals(sums_of(), figures)
    monkeypatch.setattr(bootstrap, "_VALUES_AT_ONCE", 70)
    assert intervals(sums_of(), figures) == {k: pytest.approx(v) for k, v in whole.items()}


def test_a_constant_has_itself_for_an_interval():
    rows = np.array([1.0, 5, 2, 8])
    found = intervals(np.stack([rows, rows * 0.375, rows * 0.75], axis=1), figures)
    assert found["mean"] == pytest.approx([0.375, 0.375], abs=1e-15)
    assert found["ratio"] == pytest.approx([0.5, 0.5], abs=1e-15)


def test_it_covers_the_truth_about_as_often_as_it_says():
    """100 samples of 60 means of exponentials, whose mean is 1: about 95 intervals hold it."""
    held = 0
    for seed in range(100):
        values = np.random.default_rng(seed).exponential(1, 60)
        ones = np.ones(60)
        found = intervals(np.stack([ones, values, ones], axis=1), figures)["mean"]
        held += found[0] <= 1 <= found[1]
    assert 85 <= held <= 99


def test_what_is_not_defined_has_no_interval():
    nothing = np.zeros((3, 3))
    with np.errstate(invalid="ignore"):
        assert intervals(nothing, figures) == {"mean": None, "ratio": None}
        assert intervals(np.empty((0, 3)), figures) == {"mean": None, "ratio": None}


def test_very_many_units_are_drawn_in_groups():
    assert neighbours(1) == neighbours(MOST_UNITS) == 1
    assert neighbours(MOST_UNITS + 1) == 2
    assert -(-10_000_000 // neighbours(10_000_000)) <= MOST_UNITS
