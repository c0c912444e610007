"""Which store a run is measured on, and with which bound; runs of cpsae 0.1."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cpsae
from cpsae.errors import DifferentSettingsError, RunError, SettingsError, StoreError
from cpsae.stages import evaluate as stage
from cpsae.stages.evaluate import evaluate, evaluate_each
from cpsae.stages.fit import fit
from cpsae.store import open_store, write_store
from cpsae.training.loop import Stopped
from cpsae.training.recipes import fit_recipe, preset, resolve_fit
from cpsae.training.settings import FitSettings

RELEASED = Path(__file__).parent.parent / "data/runs-0.1"
SETTINGS = FitSettings(steps=20, batch_size=32, n_latents=24, device="cpu", lr=2e-3)


@pytest.fixture
def run(plain_store, tmp_path):
    """A finished run, and its store in a folder of this test's own."""
    store = Path(shutil.copytree(plain_store.path, tmp_path / "acts.zarr"))
    return fit(store, SETTINGS, out=tmp_path / "run").path


def test_several_at_once_are_what_each_is_alone(run, tmp_path, make_store, monkeypatch):
    """Of two stores, two bounds and two widths, in whatever portions."""
    rows = np.random.default_rng(3).standard_normal((300, 12)).astype(np.float32)
    other = FitSettings(**{**SETTINGS.model_dump(), "n_latents": 12, "max_norm": 1.2})
    runs = [
        fit(tmp_path / "acts.zarr", other, out=tmp_path / "narrow").path,
        fit(make_store(rows).path, SETTINGS, out=tmp_path / "elsewhere").path,
        run,
    ]
    alone = [evaluate(path).content for path in runs]
    for limit in (1, 1 << 32):
        monkeypatch.setattr(stage, "_WEIGHTS_AT_ONCE", limit)
        for path in runs:
            (path / "evaluation.json").unlink()
        found = evaluate_each([*runs, run])
        assert list(found) == runs
        assert [each.content for each in found.values()] == alone
        assert [json.loads((path / "evaluation.json").read_text()) for path in runs] == alone


def test_below_a_folder_what_is_not_finished_is_left_out(run, tmp_path):
    (tmp_path / "runs").mkdir()
    done, begun = (Path(shutil.copytree(run, tmp_path / "runs" / n)) for n in ("done", "begun"))
    (begun / "summary.json").unlink()
    heard = []
    assert list(evaluate_each([tmp_path / "runs"], on_event=heard.append)) == [done]
    assert [event.text for event in heard if getattr(event, "kind", "") == "warning"] == [
        f"{begun}: is not finished; left out"
    ]
    shutil.rmtree(done)
    with pytest.raises(RunError, match="runs: no run is finished"):
        evaluate_each([tmp_path / "runs"])


def replace_store(path):
    shutil.rmtree(path)
    rows = np.random.default_rng(9).standard_normal((300, 12)).astype(np.float32) * 50
    return write_store(path, rows, store_dtype="float32")


def test_the_stores_absolute_path_is_recorded(plain_store, tmp_path, monkeypatch):
    shutil.copytree(plain_store.path, tmp_path / "acts.zarr")
    monkeypatch.chdir(tmp_path)
    fit("acts.zarr", SETTINGS, out="run")
    config = json.loads(Path("run/config.json").read_text())
    assert config["store"]["path"] == str(tmp_path / "acts.zarr")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    replaced = write_store("acts.zarr", np.ones((300, 12), np.float32) * 3)
    assert replaced.exists()
    before = json.loads((tmp_path / "run/summary.json").read_text())
    assert before.items() >= evaluate(tmp_path / "run").metrics.items()


def test_another_store_in_its_place_is_refused_unless_named(run, tmp_path):
    before = (run / "evaluation.json").read_bytes()
    replace_store(tmp_path / "acts.zarr")
    with pytest.raises(StoreError, match="is not the store that the run was trained on.*--store"):
        evaluate(run)
    assert (run / "evaluation.json").read_bytes() == before
    result = evaluate(run, tmp_path / "acts.zarr")
    # The same rule on that store's rows: its norms are 50 times larger, and yet all of them count.
    assert result.metrics["evaluation_skipped_rows"] == 0
    identity = open_store(tmp_path / "acts.zarr").identity
    assert json.loads((run / "evaluation.json").read_text())["store_identity"] == identity


def test_the_recorded_bound_holds_for_its_own_store(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    norms = np.concatenate(
        [
            open_store(tmp_path / "acts.zarr").evaluation.norms(c)
            for c in open_store(tmp_path / "acts.zarr").evaluation.chunks
        ]
    )
    config["facts"]["norm_bound"] = float(np.sort(norms)[-4])
    (run / "config.json").write_text(json.dumps(config))
    assert evaluate(run).metrics["evaluation_skipped_rows"] == 3


def test_a_recipe_that_repeats_a_run_wants_its_store(run, tmp_path):
    identity = json.loads((run / "config.json").read_text())["store"]["identity"]
    replace_store(tmp_path / "acts.zarr")
    with pytest.raises(StoreError, match="is not the store that the run was trained on"):
        fit(tmp_path / "acts.zarr", SETTINGS, out=tmp_path / "again", store_identity=identity)
    assert not (tmp_path / "again").exists()


def test_facts_are_found_once(plain_store, tmp_path, monkeypatch):
    """Nothing is computed again at a resume, before the first checkpoint or after."""
    settings = FitSettings(**{**SETTINGS.model_dump(), "normalize": "unit"})
    whole = fit(plain_store.path, settings, out=tmp_path / "whole").path
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cpsae.training.member.Member.update", interrupt)
        fit(plain_store.path, settings, out=tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()
    for name in ("find_facts", "find_start"):
        monkeypatch.setattr(f"cpsae.stages.jobs.{name}", lambda *_: pytest.fail("again"))
    stopped = fit(plain_store.path, settings, out=tmp_path / "run", should_stop=lambda: True)
    assert isinstance(stopped, Stopped)
    fit(plain_store.path, settings, out=tmp_path / "run")
    for name in ("sae.safetensors", "summary.json", "config.json"):
        assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_stop_during_the_evaluation_is_answered(plain_store, tmp_path):
    settings = FitSettings(**{**SETTINGS.model_dump(), "log_every": 20})
    stopped = fit(plain_store.path, settings, out=tmp_path / "a", should_stop=lambda: True)
    assert stopped == Stopped(20, 20)
    assert not (tmp_path / "a/summary.json").exists()
    fit(plain_store.path, settings, out=tmp_path / "a")
    fit(plain_store.path, settings, out=tmp_path / "b")
    for name in ("sae.safetensors", "summary.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_many_skipped_rows_are_a_warning(make_store, tmp_path):
    rows = np.random.default_rng(0).standard_normal((400, 12)).astype(np.float32)
    rows[::5] *= 100
    heard = []
    fit(make_store(rows).path, SETTINGS, out=tmp_path / "r", on_event=heard.append)
    warnings = [event.text for event in heard if getattr(event, "kind", "") == "warning"]
    assert len(warnings) == 1 and warnings[0].startswith("20% of the rows are skipped")


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Runs that cpsae 0.1 made, and their store as this release writes it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RELEASED, tmp_path / "runs")
    rows = np.load(RELEASED / "rows.npy")
    write_store("acts.zarr", rows[:800], rows[800:], layer=3, description="rows of 0.1")
    return tmp_path / "runs"


@pytest.mark.parametrize("name", ["paper", "baseline", "topk", "batchtopk"])
def test_runs_of_0_1_load_evaluate_and_repeat(released, name):
    x = torch.from_numpy(np.load(RELEASED / "rows.npy"))[800:]
    assert cpsae.load(released / name)(x).isfinite().all()
    recorded = json.loads((RELEASED / name / "evaluation.json").read_text())
    found = evaluate(released / name).metrics
    assert found == {k: pytest.approx(recorded[k], rel=1e-5, abs=1e-7) for k in found}

    recipe = fit_recipe(released / name / "config.json")
    layers = {f"recipe {released / name}/config.json": recipe, f"preset {name}": preset(name)}
    settings = resolve_fit(layers).settings
    assert (settings.seed, settings.order_seed, settings.lr) == (5, 5, 0.01)
    assert hasattr(settings.method, "l1") == (name in ("paper", "baseline"))
    if "topk" in name:  # they were trained with an L1 and without the loss on dead latents
        with pytest.raises(DifferentSettingsError, match="aux_k: 0, not None"):
            fit("acts.zarr", settings, out=released / name, preset=name)
    else:
        result = fit("acts.zarr", settings, out=released / name, preset=name)
        assert result.summary == json.loads((RELEASED / name / "summary.json").read_text())


def test_a_run_of_0_1_is_not_continued_and_its_other_settings_are_refused(released):
    (released / "paper/summary.json").unlink()
    settings = resolve_fit({"recipe x.json": fit_recipe(released / "paper/config.json")}).settings
    with pytest.raises(RunError, match="does not say what the run was begun with"):
        fit("acts.zarr", settings, out=released / "paper")
    config = json.loads((released / "paper/config.json").read_text())
    config["settings"]["k"] = 7
    (released / "paper/config.json").write_text(json.dumps(config))
    with pytest.raises(SettingsError, match="k is a setting of the kinds batchtopk, .* not"):
        resolve_fit({"recipe x.json": fit_recipe(released / "paper/config.json")})
    with pytest.raises(DifferentSettingsError, match="k: 7, not None"):
        fit("acts.zarr", settings, out=released / "paper")
