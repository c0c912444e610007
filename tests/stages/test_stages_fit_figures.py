"""What a run remembers from its first steps to its end: the initial loss, the precision."""

import json

import numpy as np
import pytest
import torch

from cpsae.stages.fit import fit
from cpsae.store import open_store, write_store
from cpsae.training.loop import Stopped
from cpsae.training.member import Member
from cpsae.training.run_folder import RunFolder
from cpsae.training.settings import FitSettings

SETTINGS = FitSettings(batch_size=16, steps=130, log_every=1, checkpoint_every=40, device="cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)
    return open_store(write_store(tmp_path_factory.mktemp("store") / "a.zarr", rows))


def test_initial_loss_is_the_mean_of_the_first_hundred_also_across_a_stop(store, tmp_path):
    asked = iter([False] * 59 + [True])
    stopped = fit(store.path, SETTINGS, out=tmp_path / "r", should_stop=lambda: next(asked))
    assert isinstance(stopped, Stopped)
    summary = fit(store.path, SETTINGS, out=tmp_path / "r").summary
    lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 130
    assert summary["initial_loss"] == pytest.approx(np.mean(losses[:100]), rel=1e-6)


def test_precision_is_that_of_the_runs_beginning(store, tmp_path):
    run = RunFolder(tmp_path / "r")
    asked = iter([True])
    fit(store.path, SETTINGS, out=run.path, should_stop=lambda: next(asked))
    config = run.read_config()
    assert config["facts"]["precision"] == "float32"
    config["facts"]["precision"] = "bfloat16"  # as if begun on a GPU
    run.write_config(config)
    continued = Member(run, SETTINGS, run.facts(), store.d, torch.device("cpu"))
    assert continued.step == 1
    assert continued.trainable.objective.bfloat16
