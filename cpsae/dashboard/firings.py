"""Of each feature the rows in which it fires, and which of them are shown.

Names: M enabled features, F rows in which a feature fires.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cpsae.dashboard.codes import Codes
from cpsae.dashboard.rows import Ints

BINS = 24
"""Of a feature's histogram of activations, from 0 to its largest."""
BANDS = ((0.75, 1.0), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25))
"""Quantiles of its activations from which examples are taken."""
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Amounts:
    """Examples a feature."""

    top: int = 12
    band: int = 3
    random: int = 5


@dataclass(frozen=True)
class Shown:
    """Rows that are a feature's examples."""

    top: Ints
    """Where it fires most, one row a context, the strongest first."""
    bands: list[Ints]
    """For each of BANDS, rows drawn from those within."""
    random: Ints
    """Drawn from all in which it fires."""

    @property
    def all(self) -> Ints:
        """Each once, in order."""
        return np.unique(np.concatenate([self.top, *self.bands, self.random]))


class Firings:
    """A table of codes, feature after feature."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        order = np.argsort(codes.fired.features, kind="stable")
        self.counts: Ints = np.bincount(codes.fired.features, minlength=codes.m)
        """(M,), rows in which each fires."""
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._rows = codes.fired.rows[order]
        self._values = codes.values[order]

    def rows(self, feature: int) -> Ints:
        """(F,), rising."""
        return self._rows[self._starts[feature] : self._starts[feature + 1]]

    def values(self, feature: int) -> npt.NDArray[np.float32]:
        """(F,), how strongly it fires in each of them."""
        return self._values[self._starts[feature] : self._starts[feature + 1]]

    def largest(self) -> npt.NDArray[np.float32]:
        """(M,), 0 where a feature never fires."""
        most = np.zeros(self.codes.m, np.float32)
        filled = self.counts > 0
        most[filled] = np.maximum.reduceat(self._values, self._starts[:-1][filled])
        return most

    def histogram(self, feature: int) -> Ints:
        """(BINS,), how many of its activations are in each bin."""
        values = self.values(feature)
        top = float(values.max()) if len(values) else 1.0
        return np.histogram(values, bins=BINS, range=(0, top))[0].astype(np.int64)

    def strongest(self, feature: int, most: int) -> Ints:
        """Places in `rows(feature)`, of the largest value first; of equal ones the earlier row."""
        return np.argsort(-self.values(feature), kind="stable")[:most]

    def shown(self, feature: int, contexts_of: Callable[[Ints], Ints], amounts: Amounts) -> Shown:
        """The examples of a feature; the same for the same codes. contexts_of: the number of each
        row's context."""
        rows, values = self.rows(feature), self.values(feature)
        order = self.strongest(feature, len(rows))
        _, firsts = np.unique(contexts_of(rows[order]), return_index=True)
        top = rows[order][np.sort(firsts)[: amounts.top]]
        drawn = np.argsort(priorities(rows), kind="stable")
        return Shown(
            top,
            [_within(rows, values, drawn, band, amounts.band) for band in BANDS],
            rows[drawn[: amounts.random]],
        )


def priorities(rows: Ints) -> npt.NDArray[np.uint64]:
    """A number for each row that has nothing to do with what is in it: those with the smallest are
    a random sample, the same one each time, and much the same rows for every feature."""
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(31))


def _within(
    rows: Ints,
    values: npt.NDArray[np.float32],
    drawn: Ints,
    band: tuple[float, float],
    most: int,
) -> Ints:
    """Rows drawn from those whose value is in a band of quantiles, the strongest first."""
    if not len(rows):
        return rows
    low, high = np.quantile(values, band)
    inside = (values[drawn] >= low) & ((values[drawn] < high) | (band[1] == 1))
    chosen = drawn[inside][:most]
    return np.asarray(rows[chosen[np.argsort(-values[chosen], kind="stable")]])
