"""Runs in the real trackers: what is there, once each; continued runs, sweeps, late trackers."""

import json
import sys

import pytest
from readers import of_tensorboard, of_trackio, of_wandb

from cpsae.errors import SettingsError
from cpsae.stages.fit import fit
from cpsae.stages.sweep import sweep
from cpsae.tracking import TRACKERS
from cpsae.training.loop import Stopped
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

SETTINGS: dict = {
    "kind": "batchtopk",
    "k": 3,
    "batch_size": 32,
    "log_every": 5,
    "checkpoint_every": 20,
    "steps": 60,
    "device": "cpu",
}
NAMES = {
    "loss": "losses/overall_loss",
    "mse": "losses/mse_loss",
    "l0": "metrics/l0",
    "lr": "details/current_learning_rate",
}
"""SAELens' own, for the same things."""


@pytest.fixture(autouse=True)
def installed(place):  # noqa: ARG001
    """All of them."""
    for name in TRACKERS.values():
        pytest.importorskip(name)


def logged(run):
    """{step: line} of metrics.jsonl."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines}


def assert_shown(shown, run) -> None:
    """Every line of the log is there, once, and the summary with the last."""
    lines, summary = logged(run), json.loads((run / "summary.json").read_text())
    assert shown.keys() - {0} == lines.keys()
    for step, line in lines.items():
        for key, name in NAMES.items():
            assert shown[step][name] == pytest.approx(line[key], rel=1e-6), (step, key)
        assert shown[step]["details/n_training_samples"] == 32 * step
        assert "details/temperature" not in shown[step]  # null in the log
    last = shown[60]
    for name in ("metrics/explained_variance", "evaluation/explained_variance"):
        assert last[name] == pytest.approx(summary["explained_variance"], rel=1e-6)
    assert last["evaluation/l0"] == pytest.approx(summary["l0"], rel=1e-6)


class Halfway(Exception):
    """What ends a training between two checkpoints."""


def test_a_run_that_dies_and_one_that_stops_go_on_in_all_three(plain_store, place) -> None:
    def die(event):
        if getattr(event, "done", 0) == 35:
            raise Halfway

    begun: dict = {"settings": FitSettings(**SETTINGS), "out": "run", "track": list(TRACKERS)}
    with pytest.raises(Halfway):
        fit(plain_store.path, on_event=die, **begun)
    ids = {p.name: json.loads(p.read_text())["id"] for p in (place / "run/trackers").glob("*.json")}
    assert len(set(ids.values())) == 3
    # from step 20 on, once more
    assert isinstance(fit(plain_store.path, should_stop=lambda: True, **begun), Stopped)
    fit(plain_store.path, **begun)
    fit(plain_store.path, **begun)  # complete: there is nothing to add
    assert_shown(of_tensorboard(place)["run"], place / "run")

    by_run, configs = of_trackio(place / "trackio")
    [name] = by_run
    assert name == f"run-{ids['trackio.json'][:4]}"
    assert_shown(by_run[name], place / "run")
    assert (configs[name]["k"], configs[name]["batch_size"]) == (3, 32)

    by_run, abouts = of_wandb(place / "wandb")
    assert by_run.keys() == abouts.keys() == {ids["wandb.json"]}
    assert_shown(by_run[ids["wandb.json"]], place / "run")
    about, config = abouts[ids["wandb.json"]]
    assert (about.display_name, about.project, about.run_group) == ("run", "cpsae", "")
    assert config["store/identity"] == plain_store.identity and config["preset"] == "paper"
    assert str(place) not in str(config)


def test_a_sweep_is_a_group(plain_store, place) -> None:
    chosen = members(parse_axes(["k=2,4"]), lambda v: FitSettings(**{**SETTINGS, **v}))
    sweep(plain_store.path, chosen, out="s", track="trackio,wandb", track_project="mine")
    by_run, configs = of_trackio(place / "trackio", "mine")
    assert {name.rpartition("-")[0] for name in by_run} == {"k=2", "k=4"}
    for name, shown in by_run.items():
        assert_shown(shown, place / "s" / name.rpartition("-")[0])
        assert configs[name]["k"] == int(name[2]) and configs[name]["_Group"] == "s"
    _, abouts = of_wandb(place / "wandb")
    assert {about.display_name for about, _ in abouts.values()} == {"k=2", "k=4"}
    assert {(about.run_group, about.project) for about, _ in abouts.values()} == {("s", "mine")}


def test_a_tracker_that_comes_late_gets_everything(plain_store, place) -> None:
    fit(plain_store.path, FitSettings(**SETTINGS), out="run")
    assert not (place / "run/trackers").exists()
    heard: list = []
    begun: dict = {"settings": FitSettings(**SETTINGS), "out": "run", "track": "tensorboard"}
    fit(plain_store.path, on_event=heard.append, **begun)
    assert [note.text for note in heard] == [
        "run is complete",
        "tensorboard: look with `tensorboard --logdir .`",
    ]
    assert_shown(of_tensorboard(place)["run"], place / "run")
    fit(plain_store.path, fresh=True, **begun)
    both = of_tensorboard(place)
    assert_shown(both["run"], place / "run")
    assert_shown(both["run.old-1"], place / "run.old-1")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("mlflow", "--track: 'mlflow' is no tracker; take trackio, wandb, tensorboard"),
        (["trackio", "x,y"], "--track: 'x' is no tracker"),
    ],
)
def test_a_name_that_is_none(plain_store, place, given, text) -> None:
    with pytest.raises(SettingsError, match=text):
        fit(plain_store.path, FitSettings(**SETTINGS), out="run", track=given)
    assert not list(place.iterdir())


def test_a_package_that_is_not_there(plain_store, place, monkeypatch) -> None:
    # a folder of that name in the present one, which wandb makes, is no package
    (place / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr("sys.path", [str(place)])
    with pytest.raises(SettingsError, match="--track wandb: .* is not installed; run `pip install"):
        fit(plain_store.path, FitSettings(**SETTINGS), out="run", track="wandb")
    assert not (place / "run").exists()
