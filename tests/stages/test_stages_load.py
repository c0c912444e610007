"""The autoencoder of a run at a step, against a run that ends there."""

import json
import os

import pytest
import torch

import cpsae
from cpsae.errors import RunError
from cpsae.stages.evaluate import evaluate
from cpsae.stages.fit import fit
from cpsae.training.settings import FitSettings

COMMON = {
    "batch_size": 32,
    "n_latents": 40,
    "checkpoint_every": 20,
    "keep_checkpoints": 9,
    "device": "cpu",
    "lr": 2e-3,
    "scale_schedule": False,
}
KINDS = {
    "competitive": {},
    "centred": {"center": True, "normalize": "unit"},
    "batchtopk": {"kind": "batchtopk", "k": 4, "dead_after": 64},
}


def files_of(sae, folder):
    sae.save(folder)
    return [(folder / name).read_bytes() for name in ("sae.safetensors", "sae.json")]


@pytest.fixture(params=KINDS)
def settings(request):
    return {**COMMON, **KINDS[request.param]}


def test_a_checkpoint_is_what_a_run_that_ends_there_gives(plain_store, tmp_path, settings):
    run = fit(plain_store.path, FitSettings(steps=45, **settings), out=tmp_path / "r").path
    short = fit(plain_store.path, FitSettings(steps=20, **settings), out=tmp_path / "s").path
    found = files_of(cpsae.load(run, step=20), tmp_path / "found")
    assert found == [(short / name).read_bytes() for name in ("sae.safetensors", "sae.json")]
    at_its_end = files_of(cpsae.load(run, step=45), tmp_path / "end")
    assert at_its_end == files_of(cpsae.load(run), tmp_path / "finished")
    result = evaluate(run, step=20)
    assert result.path == run / "evaluation-step-000020.json"
    written = json.loads(result.path.read_text())
    assert written == result.content
    assert written.pop("step") == 20
    assert written == evaluate(short).content
    assert written == json.loads((short / "evaluation.json").read_text())


def test_an_interrupted_run(plain_store, tmp_path):
    asked = FitSettings(steps=45, **COMMON)
    fit(plain_store.path, asked, out=tmp_path / "r", should_stop=lambda: True)
    with pytest.raises(RunError, match=r"is not finished; its last checkpoint is of step 10: .*"):
        cpsae.load(tmp_path / "r")
    with pytest.raises(RunError, match="--step 10"):
        evaluate(tmp_path / "r")
    sae = cpsae.load(tmp_path / "r", step=10)
    assert sae(torch.randn(3, 12)).isfinite().all()
    evaluate(tmp_path / "r", step=10)
    assert not (tmp_path / "r/evaluation.json").exists()
    fit(plain_store.path, asked, out=tmp_path / "r")
    assert torch.equal(cpsae.load(tmp_path / "r", step=10).W_enc, sae.W_enc)


def test_a_step_that_is_not_there_is_named_beside_those_that_are(plain_store, tmp_path):
    run = fit(plain_store.path, FitSettings(steps=45, **COMMON), out=tmp_path / "r").path
    with pytest.raises(RunError, match="has no step 30 to load; there are: 20, 40, 45"):
        cpsae.load(run, step=30)
    with pytest.raises(RunError, match="no such run"):
        cpsae.load(tmp_path / "nothing", step=3)


@pytest.mark.parametrize("broken", ["state.json", "state.safetensors"])
def test_a_broken_checkpoint_is_one_line(plain_store, tmp_path, broken):
    run = fit(plain_store.path, FitSettings(steps=45, **COMMON), out=tmp_path / "r").path
    file = run / "checkpoints/step-000020" / broken
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunError, match="step-000020: is no readable checkpoint") as error:
        cpsae.load(run, step=20)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["settings", "store"])
def test_a_broken_configuration_is_one_line(plain_store, tmp_path, key):
    run = fit(plain_store.path, FitSettings(steps=45, **COMMON), out=tmp_path / "r").path
    config = json.loads((run / "config.json").read_text())
    config[key] = {"kind": "nothing"} if key == "settings" else {}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="config.json: .*restore it from a copy") as error:
        cpsae.load(run, step=20)
    assert "\n" not in str(error.value)


def test_a_folder_whose_name_is_not_utf_8(plain_store, tmp_path):
    asked = FitSettings(steps=20, **COMMON)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    run = fit(plain_store.path, asked, out=odd).path
    assert (
        fit(plain_store.path, asked, out=odd).summary
        == fit(plain_store.path, asked, out=tmp_path / "r").summary
    )
    assert torch.equal(cpsae.load(run).W_enc, cpsae.load(tmp_path / "r").W_enc)
