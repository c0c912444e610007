"""Both stages on each kind of device that is there."""

import numpy as np
import pytest

import cpsae
from cpsae.stages.extract import extract
from cpsae.stages.fit import fit
from cpsae.stages.sweep import sweep
from cpsae.store import open_store, verify_store
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

COMMON = {"steps": 40, "batch_size": 64, "n_latents": 48, "checkpoint_every": 20, "lr": 2e-3}


@pytest.fixture
def store(settings, device):
    return extract(settings(device=device, layer=3, vectors=1500)).path


def test_an_extraction_is_whole_and_continues(settings, device) -> None:
    chosen = settings(device=device, layer="1,3", hook="resid_pre,mlp_out", vectors=1500)
    done = extract(chosen)
    assert all(verify_store(path).problems == [] for path in done.stores)
    assert open_store(done.stores[0]).manifest.device.kind == device
    assert extract(chosen).computed_chunks == 0


@pytest.mark.parametrize("kind", ["competitive", "relu", "topk", "batchtopk"])
def test_a_fit_stopped_and_continued_is_unbroken(store, device, tmp_path, kind) -> None:
    own = {"k": 4} if "topk" in kind else {}
    chosen = FitSettings(kind=kind, device=device, **own, **COMMON)
    whole = fit(store, chosen, out=tmp_path / "whole").path
    fit(store, chosen, out=tmp_path / "run", should_stop=lambda: True)
    fit(store, chosen, out=tmp_path / "run")
    for name in ("sae.safetensors", "summary.json"):
        assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    rows = next(iter(open_store(store).training.batches(20))).astype(np.float32)
    import torch

    assert cpsae.load(whole, device)(torch.from_numpy(rows).to(device)).isfinite().all()


def test_a_sweep_gives_the_single_runs(store, device, tmp_path) -> None:
    chosen = members(
        parse_axes(["k=4,8"]),
        lambda own: FitSettings(kind="batchtopk", device=device, **COMMON, **own),
    )
    sweep(store, chosen, out=tmp_path / "s")
    for member in chosen:
        fit(store, member.settings, out=tmp_path / member.folder)
        for name in ("sae.safetensors", "summary.json"):
            expected = (tmp_path / member.folder / name).read_bytes()
            assert (tmp_path / "s" / member.folder / name).read_bytes() == expected
