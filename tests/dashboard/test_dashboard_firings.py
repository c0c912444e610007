"""Counts, histograms and examples of features against loops over a dense matrix."""

import numpy as np
import pytest
from dense_codes import codes_of, some_codes

from cpsae.dashboard.firings import BANDS, BINS, Amounts, Firings, priorities

PER_CONTEXT = 5


def contexts(rows):
    """Rows of five a context."""
    return rows // PER_CONTEXT


@pytest.fixture(scope="module")
def a():
    return some_codes()


def test_counts_and_largest_are_of_each_column(a) -> None:
    firings = Firings(codes_of(a))
    assert (firings.counts == (a > 0).sum(0)).all()
    assert (firings.largest() == a.max(0)).all()
    for feature in range(a.shape[1]):
        assert (firings.rows(feature) == np.flatnonzero(a[:, feature])).all()
        assert (firings.values(feature) == a[a[:, feature] > 0, feature]).all()


def test_a_histogram_counts_every_firing_between_0_and_the_largest(a) -> None:
    firings = Firings(codes_of(a))
    for feature in range(a.shape[1]):
        on = a[a[:, feature] > 0, feature]
        expected = [0] * BINS
        for value in on:
            expected[min(BINS - 1, int(np.float64(value) / on.max() * BINS))] += 1
        found = firings.histogram(feature)
        assert found.sum() == len(on)
        assert np.abs(found - expected).sum() <= 2  # of values at an edge, by rounding


def test_examples_are_the_strongest_of_contexts_of_bands_and_of_all(a) -> None:
    firings = Firings(codes_of(a))
    amounts = Amounts(top=7, band=3, random=4)
    for feature in range(a.shape[1]):
        shown = firings.shown(feature, contexts, amounts)
        on = np.flatnonzero(a[:, feature]).tolist()
        best: dict[int, int] = {}
        for row in sorted(on, key=lambda r: (-a[r, feature], r)):
            best.setdefault(row // PER_CONTEXT, row)
        assert shown.top.tolist() == list(best.values())[:7]
        drawn = sorted(on, key=lambda r: int(priorities(np.array([r]))[0]))
        assert shown.random.tolist() == drawn[:4]
        for (low, high), band in zip(BANDS, shown.bands, strict=True):
            values = a[on, feature]
            ends = np.quantile(values, (low, high)) if len(on) else (0, 0)
            inside = [
                r
                for r in drawn
                if ends[0] <= a[r, feature] and (a[r, feature] < ends[1] or high == 1)
            ]
            assert sorted(band.tolist()) == sorted(inside[:3])
            assert sorted(a[band, feature], reverse=True) == a[band, feature].tolist()


def test_what_is_drawn_has_nothing_to_do_with_the_row() -> None:
    """Every tenth of the rows has about a tenth of those drawn first."""
    first = np.argsort(priorities(np.arange(20000)))[:2000]
    counts = np.bincount(first // 2000, minlength=10)
    assert abs(counts - 200).max() < 60
    assert len(set(priorities(np.arange(20000)).tolist())) == 20000
