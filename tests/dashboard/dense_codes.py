"""Codes made of a plain matrix, and small runs, for the tests of what a page shows."""

import numpy as np

from cpsae.dashboard.codes import Codes, Table


def table_of(marked) -> Table:
    """Lists of the columns that are marked in each row."""
    rows, features = np.nonzero(marked)
    counts = np.bincount(rows, minlength=len(marked))
    return Table(np.concatenate([[0], np.cumsum(counts)]), features.astype(np.int32))


def codes_of(a, suppressed=None) -> Codes:
    """a: (rows, features), 0 where a feature does not fire."""
    off = np.zeros(a.shape, bool) if suppressed is None else suppressed
    return Codes(
        a.shape[1], len(a), len(a), table_of(a != 0), a[a != 0].astype(np.float32), table_of(off)
    )


def some_codes(rows=500, m=12, seed=0):
    """A matrix of activations: some features rare, one dense, the last never on."""
    random = np.random.default_rng(seed)
    rates = np.geomspace(0.004, 0.6, m)
    a = random.exponential(1.0, (rows, m)) * (random.random((rows, m)) < rates)
    a[:, -1] = 0
    return a.astype(np.float32)
