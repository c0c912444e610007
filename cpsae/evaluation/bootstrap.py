"""Intervals of figures that are means, or ratios of means, over contexts that were drawn at random.

Names: U units (contexts, or rows where a store has none), C columns (sums over a unit's rows),
R resamples.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
MOST_UNITS = 1 << 16
"""Where there are more, as many neighbours are drawn together as bring them below it."""

_VALUES_AT_ONCE = 1 << 20

Sums = npt.NDArray[np.float64]
Figures = Callable[[Sums], Mapping[str, npt.NDArray[np.float64]]]


def neighbours(units: int) -> int:
    """How many neighbours are drawn together."""
    return max(1, -(-units // MOST_UNITS))


def intervals(sums_UC: Sums, figures: Figures) -> dict[str, list[float] | None]:
    """The percentile interval [low, high] of each figure: the middle 95 % of its values over 1,000
    sets of U units that are drawn with replacement, always the same ones.

    `figures` gives from sums (..., C) the value (...) of each. None where no value is finite.
    """
    units = len(sums_UC)
    random = np.random.default_rng(SEED)
    at_once = max(1, _VALUES_AT_ONCE // max(units, 1))
    totals = []
    for start in range(0, RESAMPLES if units else 0, at_once):
        draws = min(at_once, RESAMPLES - start)
        counts = [
            np.bincount(random.integers(units, size=units), minlength=units) for _ in range(draws)
        ]
        with np.errstate(invalid="ignore"):  # a sum that is not defined gives no value
            totals.append(np.stack(counts).astype(np.float64) @ sums_UC)
    values = figures(np.concatenate(totals)) if totals else figures(sums_UC)
    return {name: _middle(found) for name, found in values.items()}


def _middle(values_R: npt.NDArray[np.float64]) -> list[float] | None:
    values = values_R[np.isfinite(values_R)]
    if not len(values):
        return None
    tail = (1 - LEVEL) / 2
    return [float(value) for value in np.quantile(values, [tail, 1 - tail])]
