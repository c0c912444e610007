"""Exports of trained runs; what is refused, with nothing written."""

import errno
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import content_of

import cpsae
from cpsae.durable import write_atomic
from cpsae.errors import DiskError, ExportError, RunError, SettingsError
from cpsae.interop import TARGETS
from cpsae.stages.fit import fit
from cpsae.training.settings import FitSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from small_runs import make_run  # noqa: E402

SETTINGS = {
    "kind": "batchtopk",
    "k": 4,
    "normalize": "unit",
    "batch_size": 32,
    "n_latents": 40,
    "checkpoint_every": 20,
    "keep_checkpoints": 9,
    "device": "cpu",
}


def encode(folder, x):
    w = load_file(folder / "autoencoder.safetensors")
    z = x @ w["W_enc"] + w["b_enc"]
    return z.relu() * (z > w["threshold"])


def test_a_trained_run_and_its_checkpoints(plain_store, tmp_path) -> None:
    run = fit(plain_store.path, FitSettings(steps=45, **SETTINGS), out=tmp_path / "run").path
    x = torch.randn(100, 12, generator=torch.Generator().manual_seed(0))
    for step in (None, 20):
        out = tmp_path / f"out-{step}"
        done = cpsae.export(run, "safetensors", out, step=step)
        expected = cpsae.load(run, step=step).encode(x) * done.files.latent_scale
        assert torch.allclose(encode(out, x), expected, rtol=1e-5, atol=1e-6)


def test_an_unfinished_run_and_a_sweep(plain_store, tmp_path) -> None:
    settings = FitSettings(steps=45, **SETTINGS)
    fit(plain_store.path, settings, out=tmp_path / "run", should_stop=lambda: True)
    with pytest.raises(RunError, match="is not finished; its last checkpoint is of step"):
        cpsae.export(tmp_path / "run", "safetensors", tmp_path / "out")
    [step] = [int(p.name[5:]) for p in (tmp_path / "run/checkpoints").glob("step-*")]
    cpsae.export(tmp_path / "run", "safetensors", tmp_path / "out", step=step)
    make_run(tmp_path / "s/k=5")
    (tmp_path / "s/sweep.json").write_text("{}")
    with pytest.raises(RunError, match="s: is a sweep; give one of its runs .k=5"):
        cpsae.export(tmp_path / "s", "safetensors", tmp_path / "none")


def test_what_is_no_run(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for name, text in {
        "missing": "no such run; give",
        "empty": "config.json: missing; give",
    }.items():
        with pytest.raises(RunError, match=text):
            cpsae.export(tmp_path / name, "safetensors", tmp_path / "out")
    with pytest.raises(SettingsError, match="to = 'onnx' is no format: take sae-lens, "):
        cpsae.export(make_run(tmp_path / "run"), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_a_folder_that_is_taken(tmp_path, target) -> None:
    run = make_run(tmp_path / "run", "topk")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = content_of(tmp_path)
    with pytest.raises(ExportError, match="taken: is there already and is not empty; give --out"):
        cpsae.export(run, target, tmp_path / "taken")
    with pytest.raises(ExportError, match="file: is a file; give --out a folder"):
        cpsae.export(run, target, tmp_path / "file")
    with pytest.raises(ExportError, match="--out s3://x/y: expected a local folder"):
        cpsae.export(run, target, "s3://x/y")
    assert content_of(tmp_path) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place in ("empty", "link", "deep/er"):
        cpsae.export(run, target, tmp_path / place)
    assert content_of(tmp_path / "elsewhere") == content_of(tmp_path / "empty") != {}
    assert (tmp_path / "link").is_symlink()
    assert not list(tmp_path.rglob(".*"))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch) -> None:
    run = make_run(tmp_path / "run")

    def fail_at_the_second(path, content):
        if path.name == "sae_weights.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, content)

    monkeypatch.setattr("cpsae.interop.exported.write_atomic", fail_at_the_second)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DiskError, match="out: the disk is full"):
        cpsae.export(run, "sae-lens", tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
