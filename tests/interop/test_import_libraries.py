"""Activations that another library cached itself, where it is installed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from row_files import HOOK, D, T, contexts

from cpsae.interop.row_sources import find_rows


@pytest.mark.filterwarnings("ignore")
def test_what_sae_lens_itself_writes(tmp_path) -> None:
    """Its own code for shards, and for making one data set of them."""
    runner = pytest.importorskip("sae_lens.cache_activations_runner").CacheActivationsRunner
    from datasets import Array2D, Features, Sequence, Value

    kinds = {HOOK: Array2D(shape=(T, D), dtype="float32")}
    kinds["token_ids"] = Sequence(Value("int32"), length=T)
    cfg = SimpleNamespace(hook_name=HOOK, n_seq_in_buffer=20, d_in=D)
    me = SimpleNamespace(cfg=cfg, context_size=T, features=Features(kinds))
    folder = tmp_path / "cached"
    shards = folder / ".tmp_shards"
    shards.mkdir(parents=True)
    for number, some in enumerate(np.split(contexts(), 3)):
        buffer = torch.from_numpy(some.reshape(-1, D)), torch.arange(20 * T)
        saved = runner._create_shard(me, buffer)
        saved.save_to_disk(str(shards / f"shard_{number:05d}"), num_shards=1)
    runner._consolidate_shards(shards, folder, copy_files=False)
    found = find_rows(folder)
    np.testing.assert_array_equal(found.rows[np.arange(len(found.rows))], contexts().reshape(-1, D))
    assert found.hook_name == HOOK
