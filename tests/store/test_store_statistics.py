import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cpsae.store.statistics import ChunkStatistics, Summary, as_float32, exact_median

norms = npst.arrays(
    np.float32,
    st.integers(0, 40),
    elements=st.floats(0, float(np.finfo(np.float32).max), width=32),
)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
@pytest.mark.parametrize("n_rows", [1, 511, 512, 513, 1100])
def test_statistics_are_those_of_the_rounded_rows(dtype, n_rows):
    rows = (np.random.default_rng(n_rows).normal(3, 20, (n_rows, 7))).astype(dtype)
    exact = rows.astype(np.float64)
    statistics = ChunkStatistics.of(rows)
    np.testing.assert_allclose(statistics.norms, np.linalg.norm(exact, axis=1), rtol=1e-7)
    np.testing.assert_allclose(statistics.summary.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.summary.mean_squared_norm, (exact**2).sum(axis=1).mean())
    np.testing.assert_allclose(statistics.summary.largest_norm, np.linalg.norm(exact, axis=1).max())
    again = Summary.from_row(statistics.summary.as_row())
    np.testing.assert_array_equal(again.mean, statistics.summary.mean)
    assert again.as_row().shape == (7 + 2,)
    assert again.largest_norm == statistics.summary.largest_norm


def test_sums_are_wider_than_the_rows():
    rows = np.full((3000, 2), 60_000, np.float16)  # a sum in float16 is infinite
    np.testing.assert_array_equal(ChunkStatistics.of(rows).summary.mean, rows[0].astype(np.float64))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_its_own_row_s_norm(dtype, value):
    rows = np.ones((600, 5), dtype)
    rows[570, 3] = value
    assert np.flatnonzero(~np.isfinite(ChunkStatistics.of(rows).norms)) == [570]


def test_every_bfloat16_widens_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(as_float32(every), every.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(st.lists(norms, max_size=5).filter(lambda chunks: any(map(len, chunks))))
def test_median_is_numpy_s(chunks):
    everything = np.concatenate(chunks).astype(np.float64)
    assert exact_median(lambda: chunks) == np.median(everything)


def test_median_of_many_equal_upper_halves():
    values = np.random.default_rng(0).uniform(1, 1.0001, 10_001).astype(np.float32)
    assert exact_median(lambda: np.array_split(values, 7)) == np.median(values)


def test_median_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        exact_median(list)
