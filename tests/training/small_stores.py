"""Small stores with small chunks."""

import numpy as np
import pytest
import torch

from cpsae.store import open_store, write_store

ROWS_A_CHUNK = 64


@pytest.fixture(autouse=True)
def one_thread():
    """Small products gain nothing from more, and equal bits need an equal number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_store(tmp_path_factory):
    """A store of these training rows in chunks of 64, with some of them held out again."""

    def make(rows, evaluation=None, store_dtype="float32"):
        path = tmp_path_factory.mktemp("store") / "acts.zarr"
        held_out = rows[:50] if evaluation is None else evaluation
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "cpsae.store.arrays.rows_per_chunk_of_arrays", lambda _d, _dtype: ROWS_A_CHUNK
            )
            write_store(path, rows, held_out, store_dtype=store_dtype)
        return open_store(path)

    return make


@pytest.fixture(scope="session")
def plain_store(make_store):
    """600 rows of 12 dimensions with some structure and a mean, in ten chunks."""
    rng = np.random.default_rng(5)
    directions = rng.standard_normal((24, 12))
    strengths = rng.exponential(1.0, (600, 24)) * (rng.random((600, 24)) < 0.15)
    rows = strengths @ directions + 0.1 * rng.standard_normal((600, 12)) + 0.5
    return make_store(rows.astype(np.float32))
