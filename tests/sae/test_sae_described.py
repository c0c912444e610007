"""What an autoencoder says of itself, and arrays given for tensors."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch

import cpsae


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    rows = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    store = cpsae.write_store(folder / "acts.zarr", rows, layer=5)
    return cpsae.fit(
        store, out=folder / "run", n_latents=12, steps=4, batch_size=16, device="cpu"
    ).path


def test_cfg_is_what_the_run_folder_says_under_the_field_s_names(run) -> None:
    saved = json.loads((run / "sae.json").read_text())
    sae = cpsae.load(run)
    cfg = sae.cfg
    assert (cfg.architecture, cfg.kind) == ("competitive", "competitive")
    assert (cfg.d_in, cfg.d_sae, cfg.n_enabled) == (8, 12, saved["n_enabled"])
    assert (cfg.hook_name, cfg.hook_layer) == ("blocks.5.hook_resid_post", 5)
    assert (cfg.model_name, cfg.context_size, cfg.dataset_path) == (None, None, None)
    assert cfg.normalize_activations == saved["normalization"]["name"] == "layer"
    assert cfg.constants["temperature"] == saved["temperature"]
    assert (cfg.dtype, cfg.device) == ("float32", "cpu")
    assert json.loads(json.dumps(cfg.to_dict()))["d_in"] == 8
    with pytest.raises(AttributeError):
        cfg.d_in = 9  # type: ignore[misc]
    assert cpsae.load(run).to(torch.float64).cfg.dtype == "float64"
    shown = repr(sae)
    assert "\n" not in shown
    assert all(text in shown for text in ("competitive", "d_in 8", "d_sae 12", "blocks.5", "layer"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_arrays_are_taken_for_tensors(run, dtype) -> None:
    sae = cpsae.load(run)
    rows = np.random.default_rng(1).normal(size=(3, 2, 8)).astype(dtype)
    rows.flags.writeable = False
    tensor = torch.tensor(rows.astype(np.float64)).to(getattr(torch, np.dtype(dtype).name))
    latents = sae.encode(rows)
    assert torch.equal(latents, sae.encode(tensor))
    assert torch.equal(sae.decode(latents, like=rows), sae.decode(latents, like=tensor))
    assert torch.equal(sae(rows[::-1, :, :]), sae(tensor.flip(0)))
