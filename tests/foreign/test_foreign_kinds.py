"""A kind in one file outside the package, found by its entry point: all that a kind can do."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import install

import cpsae
from cpsae.errors import RunError, SettingsError
from cpsae.sae.kinds import kind_names, load_kind
from cpsae.store import write_store
from cpsae.testing.kinds import KindTests
from cpsae.training.recipes import preset_names
from cpsae.training.settings import FitSettings

TRAINED = ("--steps", "300", "--batch-size", "64", "--n-latents", "48", "--device", "cpu")


@pytest.mark.usefixtures("jumping")
class TestItPromisesWhatEveryKindDoes(KindTests):
    name = "jump-ing"


@pytest.fixture
def store(tmp_path):
    rows = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    return write_store(tmp_path / "acts.zarr", rows)


@pytest.fixture
def fit(jumping, store):
    """fit(out, *options) starts the command; the package is on its path."""

    def start(out, *options):
        environment = {**os.environ, "PYTHONPATH": f"{jumping}{os.pathsep}{Path.cwd()}"}
        command = [sys.executable, "-m", "cpsae", "fit", "--store", store, "--out", out]
        return subprocess.Popen(
            [*map(str, command), "--preset", "jump-ing", *TRAINED, *options],
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_trained_killed_resumed_saved_loaded(fit, tmp_path):
    options = ("--set", "sparsity=0.02", "--set", "checkpoint_every=20")
    whole = fit(tmp_path / "whole", *options)
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors
    chance = random.Random(0)
    log = tmp_path / "killed/metrics.jsonl"
    for quota in (3, 12, 20):
        process = fit(tmp_path / "killed", *options)
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > quota):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed/summary.json").exists(), "the kills came too late"
    assert fit(tmp_path / "killed", *options).wait() == 0
    for name in ("sae.safetensors", "sae.json", "summary.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    line = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[-1])
    assert {"soft_l0", "ever_fired", "mse", "l1", "temperature"} <= line.keys()

    sae = cpsae.load(tmp_path / "whole")
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    thresholds = sae.log_threshold.detach().exp()  # type: ignore[operator]
    assert thresholds.std() > 0, "no threshold has been learned"
    pre = sae.normalizer.normalize(x).double() @ sae.W_enc.double() + sae.b_enc.double()
    expected = torch.where(pre > thresholds.double(), pre.relu(), 0.0)
    torch.testing.assert_close(sae.encode(x).double(), expected, rtol=1e-4, atol=1e-5)
    exported = cpsae.export(tmp_path / "whole", "dictionary-learning", tmp_path / "out")
    assert exported.files.what == "JumpReluAutoEncoder"


@pytest.mark.usefixtures("jumping")
def test_settings_are_its_own():
    assert "jump-ing" in preset_names()
    assert FitSettings(kind="jump-ing", sparsity=0.5).method.sparsity == 0.5  # type: ignore[attr-defined]
    with pytest.raises(
        SettingsError,
        match="k is a setting of the kinds batchtopk, .* topk, not of jump-ing",
    ):
        FitSettings(kind="jump-ing", k=3)
    with pytest.raises(SettingsError, match="sparsity is a setting of the kind jump-ing, not of r"):
        FitSettings(kind="relu", sparsity=0.5)


def test_a_run_of_a_kind_that_is_not_installed_is_one_line(fit, tmp_path, monkeypatch):
    process = fit(tmp_path / "run", "--steps", "5")
    assert process.wait() == 0, process.stderr.read()
    monkeypatch.undo()
    from cpsae.sae import kinds

    kinds._declared.cache_clear()
    with pytest.raises(RunError, match="no kind of SAE is called 'jump-ing'.*not installed here"):
        cpsae.load(tmp_path / "run")


BROKEN = {
    "import jumping_nowhere": r"cannot be imported \(ModuleNotFoundError: No module named",
    "raise RuntimeError('two\\nlines')": r"cannot be imported \(RuntimeError: two\)",
    "Jumping = 3": r"is no subclass of cpsae.sae.kind.Kind",
    "from cpsae.sae.kinds.relu import ReLU as Jumping": r"calls itself 'relu'",
}


@pytest.mark.parametrize("content", BROKEN)
def test_a_package_that_is_broken_is_named(tmp_path, visible, content):
    folder = install(tmp_path / "site", "bad-sae", {"bad": "bad_module:Jumping"})
    (folder / "bad_module.py").write_text(content)
    visible(folder)
    sys.modules.pop("bad_module", None)
    with pytest.raises(SettingsError, match=BROKEN[content]) as caught:
        load_kind("bad")
    assert "the kind 'bad' of the package bad-sae (bad_module:Jumping)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert FitSettings(kind="topk").kind == "topk"  # others go on
    with pytest.raises(SettingsError, match="no kind of SAE is called 'gone'"):
        load_kind("gone")


def test_two_packages_of_one_name_are_both_named(tmp_path, visible):
    install(tmp_path / "site", "first-sae", {"twice": "jumping:Jumping", "relu": "a:B"})
    visible(install(tmp_path / "site", "second-sae", {"twice": "other:Jumping"}))
    assert kind_names().count("twice") == 1
    with pytest.raises(SettingsError, match="'twice' is declared by (first|second)-sae and "):
        load_kind("twice")
    with pytest.raises(SettingsError, match="'relu' is declared by cpsae itself and first-sae"):
        load_kind("relu")
