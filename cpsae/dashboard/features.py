"""Everything that a page shows of a run's features, gathered from its codes.

Names: M enabled features, S features shown with examples, K neighbours.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cpsae.dashboard.codes import Codes
from cpsae.dashboard.firings import Amounts, Firings, Shown
from cpsae.dashboard.lens import Promoted
from cpsae.dashboard.relations import Meetings, Relation, neighbours
from cpsae.dashboard.rows import Ints, SeenRows
from cpsae.dashboard.texts import Texts
from cpsae.sae.autoencoder import SparseAutoencoder

WINDOW = (20, 12)
"""Tokens of text that an example shows before and after its own."""
_JUDGED = 24
"""The strongest rows of a feature by whose tokens it is named."""
_WORDS = 6
DENSITY_EDGES = np.linspace(-6.0, 0.0, 49)
COSINE_EDGES = np.linspace(-0.1, 1.0, 56)


@dataclass(frozen=True)
class Window:
    """The rows around a feature's examples in which it fires."""

    rows: Ints
    values: npt.NDArray[np.float32]


class Features:
    """The features of a run, as they fire in the rows that were seen."""

    def __init__(self, sae: SparseAutoencoder, seen: SeenRows, codes: Codes, most: int) -> None:
        """most: features that are shown with examples; of more, some that lie evenly in the order
        of how often they fire."""
        self.m, self.n = codes.m, sae.n_latents
        self.seen, self.codes = seen, codes
        self.firings = Firings(codes)
        self.counts = self.firings.counts
        self.largest = self.firings.largest()
        self.neighbours, self.cosines = neighbours(sae.W_dec.detach(), codes.m)
        self.w_dec = sae.W_dec.detach()[: codes.m]
        self.shown = _spread(self.counts, most)
        self._together = Meetings(self.firings, codes.fired)
        self._suppressed = Meetings(self.firings, codes.suppressed)
        self.promoted: Promoted | None = None
        """Of the features in `shown`, where the language model was there to say."""

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """(M,), the share of rows in which each fires."""
        return self.counts / max(1, self.codes.counted)

    def density_histogram(self) -> Ints:
        """How many features that fire at all are in each bin of log10 of their density."""
        logs = np.log10(self.density[self.counts > 0])
        return np.histogram(np.clip(logs, -6, 0), DENSITY_EDGES)[0].astype(np.int64)

    def cosine_histogram(self) -> Ints:
        """How many features have their nearest neighbour's cosine in each bin."""
        nearest = self.cosines[:, 0] if self.cosines.shape[1] else np.empty(0)
        return np.histogram(np.clip(nearest, -0.1, 1), COSINE_EDGES)[0].astype(np.int64)

    def examples(self, feature: int, amounts: Amounts) -> Shown:
        """Rows that are its examples."""
        return self.firings.shown(feature, self.seen.contexts, amounts)

    def window(self, feature: int, examples: Shown) -> Window:
        """What is to be seen of it around its examples, where contexts have text around a row."""
        rows, values = self.firings.rows(feature), self.firings.values(feature)
        mine, before, after = examples.all, *WINDOW
        if not self.seen.has_tokens:
            before = after = 0
        near = np.zeros(len(rows) + 1, np.int64)
        np.add.at(near, np.searchsorted(rows, mine - before), 1)
        np.add.at(near, np.searchsorted(rows, mine + after, side="right"), -1)
        inside = np.cumsum(near)[:-1] > 0
        return Window(rows[inside], values[inside])

    def words(self, feature: int, texts: Texts) -> list[tuple[int, float]]:
        """The tokens at which it fires most, places in the vocabulary, and the share of its
        strongest rows that each has."""
        places = self.firings.strongest(feature, _JUDGED)
        rows = self.firings.rows(feature)[places]
        positions = self.seen.positions(rows) + texts.first_position
        counted = Counter(map(texts.word, self.seen.contexts(rows).tolist(), positions.tolist()))
        return [(word, count / len(rows)) for word, count in counted.most_common(_WORDS)]

    def judged(self) -> Ints:
        """The contexts, by number, that are needed to name all features that are shown."""
        rows = [self.firings.rows(i)[self.firings.strongest(i, _JUDGED)] for i in self.shown]
        return np.unique(self.seen.contexts(np.unique(np.concatenate([*rows, _NONE]))))

    def contexts(self, amounts: Amounts) -> Ints:
        """The contexts, by number, of all examples."""
        rows = [self.examples(i, amounts).all for i in self.shown]
        return np.unique(self.seen.contexts(np.unique(np.concatenate([*rows, _NONE]))))

    def together(self, feature: int) -> list[Relation]:
        """Those that fire with it."""
        return self._together.of(feature)

    def suppressed(self, feature: int) -> list[Relation]:
        """Those that the competition puts out while it fires."""
        return self._suppressed.of(feature)


_NONE = np.empty(0, np.int64)


def _spread(counts: Ints, most: int) -> Sequence[int]:
    m = len(counts)
    if m <= most:
        return range(m)
    order = np.argsort(-counts, kind="stable")
    chosen = order[np.linspace(0, m - 1, most).round().astype(int)]
    return [int(i) for i in np.sort(chosen)]
