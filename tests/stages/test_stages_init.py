"""Runs that go on from others: what they record, that stopped ones end like unbroken ones."""

import json
import shutil

import numpy as np
import pytest
import torch

import cpsae
from cpsae.errors import DifferentSettingsError, RunError, SettingsError
from cpsae.stages.initial import settings_of
from cpsae.training.loop import Stopped
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

COMMON = {"batch_size": 32, "n_latents": 40, "checkpoint_every": 10, "log_every": 5, "lr": 2e-3}
FIRST = FitSettings(**COMMON, device="cpu", steps=12, growth_every=5)
NEXT = FitSettings(**COMMON, device="cpu", steps=24, seed=3)
FILES = ("sae.safetensors", "sae.json", "summary.json", "evaluation.json")


@pytest.fixture(scope="module")
def first(plain_store, tmp_path_factory):
    """A finished run, not all of whose features are enabled."""
    out = tmp_path_factory.mktemp("first") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    cpsae.fit(plain_store.path, FIRST, out=out)
    torch.set_num_threads(before)
    assert cpsae.load(out).n_enabled < 40
    return out


def stop_after(count):
    """Says so when it is asked for the n-th time."""
    asked = iter(range(count))
    return lambda: next(asked, None) is None


def test_it_begins_with_the_weights_and_the_enabled_features(plain_store, first, tmp_path) -> None:
    still = FitSettings(**{**COMMON, "lr": 1e-12}, device="cpu", steps=1, weight_decay=0)
    cpsae.fit(plain_store.path, still, out=tmp_path / "run", init_run=first)
    before, after = cpsae.load(first), cpsae.load(tmp_path / "run")
    m = before.n_enabled
    for name, weight in before.named_parameters():
        assert torch.allclose(dict(after.named_parameters())[name], weight, atol=1e-6)
    [line] = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert line["n_enabled"] == m and after.n_enabled == m + line["growth"]
    assert after.normalizer == before.normalizer


def test_config_says_what_it_goes_on_from(plain_store, first, tmp_path) -> None:
    out = tmp_path / "run"
    cpsae.fit(plain_store.path, NEXT, out=out, init_run=first)
    config = json.loads((out / "config.json").read_text())
    assert config["init"]["path"] == str(first)
    assert len(config["init"]["fingerprint"]) == 64
    again = cpsae.fit(plain_store.path, NEXT, out=out, init_run=first)
    assert again.summary["steps"] == 24  # complete: nothing is done
    with pytest.raises(DifferentSettingsError, match="--init: the weights that .*/run had"):
        cpsae.fit(plain_store.path, NEXT, out=out)
    with pytest.raises(DifferentSettingsError, match="--init: no other run's weights"):
        cpsae.fit(plain_store.path, FIRST, out=first, init_run=out)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_stopped_it_ends_like_an_unbroken_one(plain_store, first, tmp_path, after) -> None:
    """Before its first checkpoint, too; and the run that it is from may be gone by then."""
    source = tmp_path / "source"
    shutil.copytree(first, source)
    cpsae.fit(plain_store.path, NEXT, out=tmp_path / "whole", init_run=source)
    out = tmp_path / "broken"
    stopped = cpsae.fit(
        plain_store.path, NEXT, out=out, init_run=source, should_stop=stop_after(after)
    )
    assert isinstance(stopped, Stopped)
    if after == 0:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)  # as if it was killed
    shutil.rmtree(source)
    cpsae.fit(plain_store.path, NEXT, out=out, init_run=source)
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_other_weights_in_its_place_are_refused(plain_store, first, tmp_path) -> None:
    source, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(first, source)
    cpsae.fit(plain_store.path, NEXT, out=out, init_run=source, should_stop=stop_after(0))
    sae = cpsae.load(source)
    sae.b_enc.data += 1
    sae.save(source)
    with pytest.raises(DifferentSettingsError, match="--init: the weights that"):
        cpsae.fit(plain_store.path, NEXT, out=out, init_run=source)


def test_its_folder_has_another_name(plain_store, first, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        cpsae.fit(plain_store.path, NEXT, init_run=init).path.name for init in (None, first, None)
    }
    assert len(names) == 2


def test_a_sweep_goes_on_from_one_run(plain_store, first, tmp_path) -> None:
    def settings(values):
        return FitSettings(**{**COMMON, **values}, device="cpu", steps=6)

    two = members(parse_axes(["lr=0.001,0.01"]), settings)
    cpsae.sweep(plain_store.path, two, out=tmp_path / "sweep", init_run=first)
    cpsae.fit(plain_store.path, settings({"lr": 1e-2}), out=tmp_path / "alone", init_run=first)
    own = tmp_path / "sweep/lr=0.01/sae.safetensors"
    assert own.read_bytes() == (tmp_path / "alone/sae.safetensors").read_bytes()


def test_what_is_no_finished_run(plain_store, first, tmp_path) -> None:
    with pytest.raises(RunError, match="no such"):
        cpsae.fit(plain_store.path, NEXT, out=tmp_path / "run", init_run=tmp_path / "none")
    cpsae.fit(plain_store.path, NEXT, out=tmp_path / "half", should_stop=stop_after(0))
    with pytest.raises(RunError, match="is not finished"):
        cpsae.fit(plain_store.path, NEXT, out=tmp_path / "run", init_run=tmp_path / "half")
    with pytest.raises(SettingsError, match="does not fit: .*its kind is competitive, not relu"):
        relu = FitSettings(kind="relu", normalize="layer", steps=3, **COMMON)
        cpsae.fit(plain_store.path, relu, out=tmp_path / "run", init_run=first)
    assert not (tmp_path / "run").exists()


def test_keywords_are_put_over_its_settings(plain_store, first, tmp_path) -> None:
    done = cpsae.fit(plain_store.path, init_run=first, out=tmp_path / "run", steps=5)
    config = json.loads((done.path / "config.json").read_text())
    assert (config["preset"], config["settings"]["growth_every"]) == ("paper", 5)
    assert (config["settings"]["steps"], config["settings"]["lr"]) == (5, 2e-3)


def test_settings_that_go_with_it(first) -> None:
    preset, whole = settings_of(first, whole=True)
    assert (preset, whole["n_latents"], whole["lr"], whole["steps"]) == ("paper", 40, 2e-3, 12)
    assert settings_of(first, whole=False) == ("paper", {"n_latents": 40, "normalize": "layer"})


def test_a_converted_one_goes_on(plain_store, first, tmp_path) -> None:
    """At step 0 it is what it was, though rows are normalised now; and it learns."""
    settings = FitSettings(
        kind="topk", k=4, normalize="unit", growth="none", steps=150, device="cpu", **COMMON
    )
    cpsae.fit(plain_store.path, settings, out=tmp_path / "topk")
    cpsae.export(tmp_path / "topk", "sae-lens", tmp_path / "exported")
    cpsae.convert(tmp_path / "exported", tmp_path / "converted", store=plain_store.path)
    assert settings_of(tmp_path / "converted", whole=True) == ("topk", {"n_latents": 40, "k": 4})
    done = cpsae.fit(
        plain_store.path, settings, out=tmp_path / "run", init_run=tmp_path / "converted"
    )
    before = cpsae.evaluate(tmp_path / "converted").metrics["explained_variance"]
    assert before is not None and done.summary["explained_variance"] > before
    start = (tmp_path / "run/metrics.jsonl").read_text().splitlines()[0]
    first_loss = (tmp_path / "topk/metrics.jsonl").read_text().splitlines()[0]
    assert json.loads(start)["mse"] < json.loads(first_loss)["mse"] / 2
    assert np.isfinite(json.loads(start)["loss"]) and first.exists()
