"""More steps for a finished run: it ends as a run of that length does, or is refused in one line,
and what was finished stays."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import cpsae
from cpsae.errors import DifferentSettingsError, RunError, SettingsError
from cpsae.events import Note
from cpsae.json_files import write_object
from cpsae.stages.fit import fit
from cpsae.stages.sweep import sweep
from cpsae.training import longer as longer_module
from cpsae.training.loop import Stopped
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

COMMON = {
    "batch_size": 32,
    "n_latents": 40,
    "checkpoint_every": 20,
    "device": "cpu",
    "lr": 2e-3,
    "scale_schedule": False,
    "warmup_steps": 30,
    "temperature": {"anneal_steps": 25},
}
FILES = ("sae.safetensors", "sae.json", "summary.json", "evaluation.json")
TIMES = ("seconds", "rows_per_second")


def of(steps, **values):
    common = COMMON if values.get("kind") in (None, "competitive") else without_temperature()
    return FitSettings(**{**common, "steps": steps, **values})


def without_temperature():
    return {key: value for key, value in COMMON.items() if key != "temperature"}


def lines_of(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def same(run, other):
    for name in FILES:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert lines_of(run) == lines_of(other)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(plain_store, tmp_path_factory):
    """A run of 75 steps, made at once."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    torch.set_num_threads(1)
    return fit(plain_store.path, of(75), out=path).path


@pytest.mark.parametrize("lengths", [(45, 75), (20, 75), (7, 33, 75), (1, 75), (74, 75)])
def test_it_ends_as_a_run_of_that_length(whole, plain_store, tmp_path, lengths):
    heard = []
    for steps in lengths:
        fit(plain_store.path, of(steps), out=tmp_path / "r", on_event=heard.append)
    same(tmp_path / "r", whole)
    said = [e.text for e in heard if isinstance(e, Note) and "goes on from step" in e.text]
    assert len(said) == len(lengths) - 1
    assert said[-1].endswith("it will be what a run of that length is")
    kept = sorted(path.name for path in (tmp_path / "r/finished").iterdir())
    assert kept == [f"step-{steps:06d}" for steps in lengths[:-1]]
    config = json.loads((tmp_path / "r/config.json").read_text())
    assert config["settings"] == of(75).model_dump(mode="json")
    assert [entry["from"] for entry in config["lengthened"]] == [*lengths[:-1]]


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "topk", "k": 4, "growth": "none", "warmup_steps": 0, "dead_after": 100},
        {"kind": "relu", "center": True, "normalize": "unit"},
        {"kind": "batchtopk", "k": 4, "growth": "fixed", "aux_k": 0},
    ],
)
def test_every_kind_does(plain_store, tmp_path, values):
    fit(plain_store.path, of(60, **values), out=tmp_path / "whole")
    fit(plain_store.path, of(33, **values), out=tmp_path / "r")
    fit(plain_store.path, of(60, **values), out=tmp_path / "r")
    same(tmp_path / "r", tmp_path / "whole")


def test_what_was_finished_is_kept_as_it_was(plain_store, tmp_path):
    run = fit(plain_store.path, of(45), out=tmp_path / "r").path
    before = {k: v for k, v in contents(run).items() if "/" not in k and k != "start.safetensors"}
    rows = torch.randn(20, 12)
    expected = cpsae.load(run).encode(rows)
    fit(plain_store.path, of(75), out=run)
    assert contents(run / "finished/step-000045") == before
    assert torch.equal(cpsae.load(run, step=45).encode(rows), expected)
    assert not torch.equal(cpsae.load(run).encode(rows), expected)
    assert torch.equal(cpsae.load(run, step=75).encode(rows), cpsae.load(run).encode(rows))


def test_stopped_on_the_way_it_goes_on(whole, plain_store, tmp_path):
    run = fit(plain_store.path, of(45), out=tmp_path / "r").path
    finished = (run / "sae.safetensors").read_bytes()
    stopped = fit(plain_store.path, of(75), out=run, should_stop=lambda: True)
    assert stopped == Stopped(50, 75)
    assert not (run / "summary.json").exists()
    assert (run / "sae.safetensors").read_bytes() == finished
    with pytest.raises(DifferentSettingsError, match="steps: 75, not 45"):
        fit(plain_store.path, of(45), out=run)
    with pytest.raises(DifferentSettingsError, match="is not finished.*75 to 90 steps"):
        fit(plain_store.path, of(90), out=run)
    fit(plain_store.path, of(75), out=run)
    same(run, whole)


@pytest.mark.parametrize("gone", ["metrics.jsonl", "evaluation.json"])
def test_what_somebody_removed_is_not_missed(whole, plain_store, tmp_path, gone):
    run = fit(plain_store.path, of(45), out=tmp_path / "r").path
    (run / gone).unlink()
    fit(plain_store.path, of(75), out=run)
    assert not (run / "finished/step-000045" / gone).exists()
    assert (run / "finished/step-000045/summary.json").exists()
    for name in FILES:
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_a_log_whose_last_line_is_damaged(whole, plain_store, tmp_path):
    run = fit(plain_store.path, of(45), out=tmp_path / "r").path
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4')
    fit(plain_store.path, of(75), out=run)
    same(run, whole)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(11))
def test_killed_while_the_new_length_is_recorded(whole, plain_store, tmp_path, monkeypatch, moment):
    """At every call that changes the disk."""
    run = fit(plain_store.path, of(45), out=tmp_path / "r").path
    weights = (run / "sae.safetensors").read_bytes()
    calls = 0

    def killing(function):
        def called(*arguments):
            nonlocal calls
            if calls == moment:
                raise _Killed
            calls += 1
            return function(*arguments)

        return called

    with monkeypatch.context() as patch:
        for name in ("link_or_copy", "write_atomic", "fsync_folder"):
            patch.setattr(longer_module, name, killing(getattr(longer_module, name)))
        patch.setattr("cpsae.training.run_folder.write_object", killing(write_object))
        with pytest.raises(_Killed):
            fit(plain_store.path, of(75), out=run)
    assert (run / "sae.safetensors").read_bytes() == weights
    fit(plain_store.path, of(75), out=run)
    same(run, whole)
    assert (run / "finished/step-000045/sae.safetensors").read_bytes() == weights


_RUN = """
import sys, torch
torch.set_num_threads(1)
from cpsae.stages.fit import fit
from cpsae.training.settings import FitSettings
fit(sys.argv[1], FitSettings.model_validate_json(sys.argv[2]), out=sys.argv[3])
"""


def test_killed_at_random_moments_on_the_way(plain_store, tmp_path):
    run = tmp_path / "r"
    fit(plain_store.path, of(40), out=run)
    asked = [str(plain_store.path), of(900).model_dump_json(), str(run)]
    chance = random.Random(5)
    for quota in (6, 20, 40):
        process = subprocess.Popen([sys.executable, "-c", _RUN, *asked])
        while process.poll() is None and (run / "metrics.jsonl").read_text().count("\n") < quota:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (run / "summary.json").exists()
    fit(plain_store.path, of(900), out=run)
    fit(plain_store.path, of(900), out=tmp_path / "whole")
    same(run, tmp_path / "whole")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr_decay": 0.2}, r"fall in the last 15 of 75 steps, and has fallen already in the last"),
        ({"scale_schedule": True, "warmup_steps": 1000}, "have risen for 15 steps, not 9"),
        (
            {"scale_schedule": True, "warmup_steps": 0, "temperature": {"anneal_steps": 2000}},
            r"temperature.anneal_steps would have been 31, not 18",
        ),
        ({"kind": "topk", "k": 4}, r"dead_after would have been 240, not 144"),
    ],
)
def test_a_run_that_would_not_end_so_is_refused_unless_stretched(
    plain_store, tmp_path, values, said
):
    run = fit(plain_store.path, of(45, **values), out=tmp_path / "r").path
    before = contents(run)
    with pytest.raises(DifferentSettingsError, match=said) as error:
        fit(plain_store.path, of(75, **values), out=run)
    assert "--stretch" in str(error.value) and "\n" not in str(error.value)
    assert contents(run) == before
    heard = []
    fit(plain_store.path, of(75, **values), out=run, stretch=True, on_event=heard.append)
    assert any(isinstance(e, Note) and "not be what a run of that length" in e.text for e in heard)
    config = json.loads((run / "config.json").read_text())
    assert config["lengthened"] == [{"from": 45, "to": 75, "stretched": True}]
    assert json.loads((run / "summary.json").read_text())["steps"] == 75
    lines = {line["step"]: line for line in lines_of(run)}
    first = [line for step, line in lines.items() if step < 45]
    kept = run / "finished/step-000045"
    assert first == [line for line in lines_of(kept) if line["step"] < 45]
    if "lr_decay" in values:
        assert lines[50]["lr"] == 2e-3 > lines[70]["lr"] > lines[75]["lr"] > 0
    else:
        assert lines[75]["lr"] == 2e-3
    again = []
    fit(plain_store.path, of(75, **values), out=run, stretch=True, on_event=again.append)
    assert again == [Note(f"{run} is complete")]


def test_a_kind_without_schedules_does_not_mind_their_scale(plain_store, tmp_path):
    values = {"kind": "relu", "growth": "none", "warmup_steps": 0, "scale_schedule": True}
    fit(plain_store.path, of(30, **values), out=tmp_path / "r")
    fit(plain_store.path, of(60, **values), out=tmp_path / "r")
    fit(plain_store.path, of(60, **values), out=tmp_path / "whole")
    same(tmp_path / "r", tmp_path / "whole")


def test_an_epoch_goes_on_too_and_its_number_says_the_same(plain_store, tmp_path):
    epoch = fit(plain_store.path, of(None), out=tmp_path / "r").summary["steps"]
    heard = []
    fit(plain_store.path, of(epoch), out=tmp_path / "r", on_event=heard.append)
    assert heard == [Note(f"{tmp_path / 'r'} is complete")]
    fit(plain_store.path, of(2 * epoch), out=tmp_path / "r")
    fit(plain_store.path, of(2 * epoch), out=tmp_path / "whole")
    same(tmp_path / "r", tmp_path / "whole")


def test_what_is_refused(plain_store, tmp_path):
    run = fit(plain_store.path, of(45), out=tmp_path / "r").path
    before = contents(run)
    for asked, said in (
        (of(75, lr=1e-3), "lr: 0.002, not 0.001"),
        (of(30), "steps: 45, not 30"),
    ):
        with pytest.raises(DifferentSettingsError, match=said):
            fit(plain_store.path, asked, out=run)
    with pytest.raises(SettingsError, match="--stretch: is for more steps"):
        fit(plain_store.path, of(75), out=tmp_path / "new", stretch=True)
    with pytest.raises(SettingsError, match="--stretch: is for more steps"):
        fit(plain_store.path, of(75), out=run, stretch=True, fresh=True)
    assert contents(run) == before and not (tmp_path / "new").exists()
    shutil.rmtree(run / "checkpoints/step-000045")
    with pytest.raises(RunError, match="checkpoint of its last step 45 is gone"):
        fit(plain_store.path, of(75), out=run)
    with pytest.raises(RunError, match="checkpoint of its last step 45 is gone"):
        fit(plain_store.path, of(75), out=run, stretch=True)


def swept(steps, *axes):
    return members(parse_axes(axes), lambda chosen: of(steps, **chosen))


def test_a_sweep_goes_on_as_its_runs_do(plain_store, tmp_path):
    axis = "lr=2e-3,4e-3"
    sweep(plain_store.path, swept(75, axis), out=tmp_path / "whole")
    sweep(plain_store.path, swept(45, axis), out=tmp_path / "s")
    stopped = sweep(plain_store.path, swept(75, axis), out=tmp_path / "s", should_stop=lambda: True)
    assert stopped == Stopped(50, 75)
    result = sweep(plain_store.path, swept(75, axis), out=tmp_path / "s")
    assert [m["summary"]["steps"] for m in result.members] == [75, 75]
    for folder in ("lr=2e-3", "lr=4e-3"):
        same(tmp_path / "s" / folder, tmp_path / "whole" / folder)
        assert (tmp_path / "s" / folder / "finished/step-000045/summary.json").exists()


def test_a_sweep_of_which_one_run_went_on_already(plain_store, tmp_path):
    axis = "lr=2e-3,4e-3"
    sweep(plain_store.path, swept(75, axis), out=tmp_path / "whole")
    sweep(plain_store.path, swept(45, axis), out=tmp_path / "s")
    fit(plain_store.path, of(75), out=tmp_path / "s/lr=2e-3", should_stop=lambda: True)
    sweep(plain_store.path, swept(75, axis), out=tmp_path / "s")
    for folder in ("lr=2e-3", "lr=4e-3"):
        same(tmp_path / "s" / folder, tmp_path / "whole" / folder)
