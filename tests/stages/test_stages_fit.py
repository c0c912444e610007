"""Whole runs: what they write, how they stop, and that stopped ones end like unbroken ones."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from strict_json import read_strictly

from cpsae.durable import write_atomic
from cpsae.errors import (
    BusyError,
    DamagedStoreError,
    DifferentSettingsError,
    DiskError,
    NonFiniteError,
    RunError,
    SettingsError,
)
from cpsae.events import Note
from cpsae.locks import writer_lock
from cpsae.sae.autoencoder import load
from cpsae.stages.evaluate import evaluate
from cpsae.stages.fit import fit
from cpsae.store import open_store
from cpsae.training.loop import Stopped
from cpsae.training.resident import ResidentRows
from cpsae.training.settings import FitSettings

COMMON = {
    "steps": 45,
    "batch_size": 32,
    "n_latents": 40,
    "checkpoint_every": 20,
    "device": "cpu",
    "lr": 2e-3,
}
SETTINGS = FitSettings(**COMMON)
TIMES = ("seconds", "rows_per_second")


def lines_of(run):
    return [read_strictly(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_times(run):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines_of(run)]


def same(run, other):
    for name in ("sae.safetensors", "sae.json", "summary.json", "evaluation.json"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(run) == without_times(other)


def stopping_every(n):
    """A should_stop that says yes each n-th time."""
    asked = iter(range(1, 10_000))
    return lambda: next(asked) % n == 0


@pytest.fixture(scope="module")
def unbroken(plain_store, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "unbroken"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    fit(plain_store.path, SETTINGS, out=path)
    torch.set_num_threads(before)
    return path


def test_what_a_run_writes(unbroken, plain_store):
    assert sorted(path.name for path in unbroken.iterdir()) == [
        "checkpoints",
        "config.json",
        "evaluation.json",
        "metrics.jsonl",
        "sae.json",
        "sae.safetensors",
        "start.safetensors",
        "summary.json",
    ]
    lines = lines_of(unbroken)
    assert [line["step"] for line in lines] == [1, 10, 20, 30, 40, 45]
    assert set(lines[0]) == {
        *("step", "loss", "mse", "l1", "l0", "n_enabled", "utilisation", "growth"),
        *("temperature", "lr", "seconds", "rows_per_second"),
    }
    assert lines[0]["n_enabled"] == 10
    assert lines[-1]["loss"] < lines[0]["loss"]
    summary = read_strictly((unbroken / "summary.json").read_text())
    assert not any(isinstance(value, (dict, list)) for value in summary.values())
    assert set(summary) >= {
        *("l0", "l0_eff", "explained_variance", "mse", "cosine", "l1", "relative_bias", "dead"),
        *("dense", "steps", "rows", "evaluation_rows", "skipped_rows"),
    }
    assert (summary["steps"], summary["rows"]) == (45, 45 * 32)
    config = read_strictly((unbroken / "config.json").read_text())
    assert config["settings"] == SETTINGS.model_dump(mode="json")
    assert config["store"]["identity"] == plain_store.identity
    kept = sorted(path.name for path in (unbroken / "checkpoints").iterdir())
    assert kept == ["step-000040", "step-000045"]
    state = read_strictly((unbroken / "checkpoints/step-000040/state.json").read_text())
    assert set(state) >= {"step", "settings", "feed", "machine", "n_enabled"}


def test_complete_says_so_at_once(unbroken, plain_store, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    monkeypatch.setattr("cpsae.stages.fit.train", lambda *_: pytest.fail("trained again"))
    heard = []
    result = fit(plain_store.path, SETTINGS, out=unbroken, on_event=heard.append)
    assert heard == [Note(f"{unbroken} is complete")]
    assert result.summary == json.loads((unbroken / "summary.json").read_text())
    assert before == {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}


def test_rows_held_on_the_device_change_nothing(unbroken, plain_store, tmp_path, monkeypatch):
    """As a GPU holds them; stopped and continued, too."""
    held = lambda part, device, *_: ResidentRows(part, device)  # noqa: E731
    monkeypatch.setattr("cpsae.stages.runs.resident_rows", held)
    assert isinstance(
        fit(plain_store.path, SETTINGS, out=tmp_path / "run", should_stop=stopping_every(2)),
        Stopped,
    )
    fit(plain_store.path, SETTINGS, out=tmp_path / "run")
    same(unbroken, tmp_path / "run")


@pytest.mark.parametrize("every", [2, 3, 4])
def test_stopped_and_continued_is_unbroken(unbroken, plain_store, tmp_path, every):
    should_stop = stopping_every(every)
    stops = []
    for _ in range(10):
        result = fit(plain_store.path, SETTINGS, out=tmp_path / "r", should_stop=should_stop)
        if not isinstance(result, Stopped):
            break
        stops.append(result.step)
        assert not (tmp_path / "r" / "summary.json").exists()
    assert stops[0] == every * 10
    same(tmp_path / "r", unbroken)


KINDS = {
    "relu": {"kind": "relu", "growth": "none"},
    "topk": {"kind": "topk", "k": 4, "growth": "none"},
    "batchtopk": {"kind": "batchtopk", "k": 4},
    "unit": {"normalize": "unit", "center": True, "clip": 0.1, "lr_decay": 0.2},
    "sqrt-d": {"normalize": "sqrt-d", "init": "uniform", "precision": "bfloat16"},
    "none": {"normalize": "none", "optimizer": "adam", "l1_on": "raw", "growth": "fixed"},
    "layer-variance": {"normalize": "layer-variance", "mse_reduction": "mean"},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_and_setting_resumes_exactly(plain_store, tmp_path, name):
    settings = FitSettings(**{**COMMON, **KINDS[name]})  # type: ignore[dict-item]
    fit(plain_store.path, settings, out=tmp_path / "a")
    stopped = fit(plain_store.path, settings, out=tmp_path / "b", should_stop=lambda: True)
    assert stopped == Stopped(10, 45)
    fit(plain_store.path, settings, out=tmp_path / "b")
    same(tmp_path / "a", tmp_path / "b")
    rows = torch.from_numpy(np.array(plain_store.training.rows(plain_store.training.chunks[0])))
    assert load(tmp_path / "a")(rows).isfinite().all()


_RUN = """
import sys, torch
torch.set_num_threads(1)
from cpsae.stages.fit import fit
from cpsae.training.settings import FitSettings
fit(sys.argv[1], FitSettings.model_validate_json(sys.argv[2]), out=sys.argv[3])
"""


def test_killed_at_random_moments_then_completed_is_unbroken(plain_store, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 600})
    arguments = [str(plain_store.path), settings.model_dump_json(), str(tmp_path / "killed")]
    command = [sys.executable, "-c", _RUN, *arguments]
    chance = random.Random(3)
    for quota in (1, 15, 30):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        log = tmp_path / "killed" / "metrics.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.read_text().count("\n") >= quota:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed" / "summary.json").exists(), "the kills came too late"
    fit(plain_store.path, settings, out=tmp_path / "killed")
    fit(plain_store.path, settings, out=tmp_path / "unbroken")
    same(tmp_path / "killed", tmp_path / "unbroken")
    steps = [line["step"] for line in lines_of(tmp_path / "killed")]
    assert steps == [1, *range(10, 601, 10)]


def test_threads_are_the_runs_own_and_put_back(plain_store, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 12})
    torch.set_num_threads(2)
    fit(plain_store.path, settings, out=tmp_path / "r", should_stop=lambda: True)
    torch.set_num_threads(1)
    heard = []
    fit(plain_store.path, settings, out=tmp_path / "r", on_event=heard.append)
    assert Note("using 2 threads, as the run was begun with") in heard
    assert torch.get_num_threads() == 1

    # also where it was stopped before its first checkpoint
    shutil.rmtree(tmp_path / "r" / "checkpoints")
    (tmp_path / "r" / "summary.json").unlink()
    heard.clear()
    fit(plain_store.path, settings, out=tmp_path / "r", on_event=heard.append)
    assert Note("using 2 threads, as the run was begun with") in heard


def test_another_machine_is_said(plain_store, tmp_path):
    fit(plain_store.path, SETTINGS, out=tmp_path / "r", should_stop=lambda: True)
    path = tmp_path / "r" / "config.json"
    config = json.loads(path.read_text())
    config["machine"]["cpu_capability"] = "SPARC"
    path.write_text(json.dumps(config))
    heard = []
    fit(plain_store.path, SETTINGS, out=tmp_path / "r", on_event=heard.append)
    warnings = [event.text for event in heard if getattr(event, "kind", "") == "warning"]
    assert len(warnings) == 1
    assert "cpu_capability SPARC, now" in warnings[0]


def test_other_settings_are_each_listed(unbroken, plain_store, make_store):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    other = FitSettings(**{**COMMON, "lr": 0.5, "l1": 0.1, "checkpoint_every": 7})
    with pytest.raises(DifferentSettingsError) as caught:
        fit(plain_store.path, other, out=unbroken)
    assert caught.value.differences == ["l1: 0.04, not 0.1", "lr: 0.002, not 0.5"]
    assert "\n" not in str(caught.value)
    foreign = make_store(np.ones((100, 12), np.float32))
    with pytest.raises(DifferentSettingsError, match="store: not the one at"):
        fit(foreign.path, SETTINGS, out=unbroken)
    assert before == {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}


def test_fresh_keeps_the_old_one(plain_store, tmp_path):
    fit(plain_store.path, SETTINGS, out=tmp_path / "r", should_stop=lambda: True)
    other = SETTINGS.model_copy(update={"seed": 1})
    unfit = SETTINGS.model_copy(update={"batch_size": 10_000})
    with pytest.raises(SettingsError, match="batch_size"):
        fit(plain_store.path, unfit, out=tmp_path / "r", fresh=True)
    assert not (tmp_path / "r.old-1").exists()
    fit(plain_store.path, other, out=tmp_path / "r", fresh=True)
    assert (tmp_path / "r.old-1" / "checkpoints" / "step-000010").is_dir()
    assert (tmp_path / "r" / "summary.json").exists()


def test_refused_runs_leave_nothing(plain_store, tmp_path):
    unfit = FitSettings(**COMMON, kind="topk", k=41)
    with pytest.raises(SettingsError, match="k = 41"):
        fit(plain_store.path, unfit, out=tmp_path / "runs" / "r")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").touch()
    for fresh in (False, True):
        with pytest.raises(RunError, match="is no run"):
            fit(plain_store.path, SETTINGS, out=tmp_path / "thesis", fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_second_process_is_refused(plain_store, tmp_path):
    fit(plain_store.path, SETTINGS, out=tmp_path / "r", should_stop=lambda: True)
    with writer_lock(tmp_path / "r", "run"), pytest.raises(BusyError, match="another process"):
        fit(plain_store.path, SETTINGS, out=tmp_path / "r")


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(make_store, tmp_path):
    """The huge row comes at a step that is fixed; the run before it must not be lost."""
    rows = np.random.default_rng(0).standard_normal((600, 12)).astype(np.float32)
    rows[300] = 1e30
    settings = SETTINGS.model_copy(
        update={"normalize": "none", "init": "uniform", "max_norm": 0.0, "log_every": 1}
    )
    settings = settings.model_copy(update={"checkpoint_every": 1})
    store = make_store(rows)
    with pytest.raises(NonFiniteError) as caught:
        fit(store.path, settings, out=tmp_path / "r")
    assert "the loss is no finite number" in str(caught.value)
    assert "--set max_norm=10" in str(caught.value)
    last = [line["step"] for line in lines_of(tmp_path / "r")][-1]
    assert f"step {last + 1}: " in str(caught.value)
    kept = sorted((tmp_path / "r" / "checkpoints").iterdir())
    assert kept[-1].name == f"step-{last:06d}"
    assert not (tmp_path / "r" / "sae.safetensors").exists()


def test_weights_that_are_no_numbers_are_never_kept(plain_store, tmp_path):
    """A huge learning rate: the loss of the first step is fine, the weights after it are not."""
    settings = SETTINGS.model_copy(update={"lr": 1e38, "warmup_steps": 0, "checkpoint_every": 1})
    settings = settings.model_copy(update={"log_every": 1})
    with pytest.raises(NonFiniteError, match="with --fresh"):
        fit(plain_store.path, settings, out=tmp_path / "r")
    for path in (tmp_path / "r" / "checkpoints").glob("*/state.safetensors"):
        from safetensors.torch import load_file

        tensors = load_file(path)
        assert all(tensors[name].isfinite().all() for name in ("w_enc", "w_dec", "b_enc"))


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(
    unbroken, plain_store, tmp_path, monkeypatch
):
    def full(path, *buffers):
        if "step-000040" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(path, *buffers)

    monkeypatch.setattr("cpsae.training.checkpoint.write_atomic", full)
    with pytest.raises(DiskError, match="the disk is full"):
        fit(plain_store.path, SETTINGS, out=tmp_path / "r")
    kept = [path.name for path in (tmp_path / "r" / "checkpoints").iterdir()]
    assert kept == ["step-000020"]
    monkeypatch.undo()
    fit(plain_store.path, SETTINGS, out=tmp_path / "r")
    same(tmp_path / "r", unbroken)


def test_a_broken_checkpoint_is_one_line_and_the_one_before_goes_on(
    unbroken, plain_store, tmp_path
):
    shutil.copytree(unbroken, tmp_path / "r")
    (tmp_path / "r" / "summary.json").unlink()
    last = tmp_path / "r" / "checkpoints" / "step-000045"
    state = json.loads((last / "state.json").read_text())
    for broken in ("{", json.dumps({**state, "feed": {"epok": 1}}), json.dumps({"step": 45})):
        (last / "state.json").write_text(broken)
        with pytest.raises(RunError) as caught:
            fit(plain_store.path, SETTINGS, out=tmp_path / "r")
        assert str(last) in str(caught.value)
        assert "\n" not in str(caught.value)
    shutil.rmtree(last)
    fit(plain_store.path, SETTINGS, out=tmp_path / "r")
    same(tmp_path / "r", unbroken)


def test_a_damaged_chunk_stops_the_run(plain_store, tmp_path):
    shutil.copytree(plain_store.path, tmp_path / "s")
    damaged = plain_store.training.chunks[4].key
    with (tmp_path / "s" / damaged).open("r+b") as file:
        file.seek(9)
        file.write(b"\x55")
    with pytest.raises(DamagedStoreError, match=damaged):
        fit(tmp_path / "s", SETTINGS, out=tmp_path / "r")


def absent(store):
    return [*store.evaluation.chunks, *store.training.chunks[3:]]


@pytest.fixture
def partial(plain_store, tmp_path):
    """The store as it may stand amid an extraction: three training chunks, nothing held out."""
    shutil.copytree(plain_store.path, tmp_path / "s")
    for chunk in absent(plain_store):
        (tmp_path / "s" / chunk.key).unlink()
    mark_complete(tmp_path / "s", False)
    return tmp_path / "s"


def mark_complete(store, complete):
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["cpsae"]["complete"] = complete
    (store / "zarr.json").write_text(json.dumps(document))


def test_a_run_on_an_unfinished_store_keeps_to_its_chunks(
    partial, plain_store, tmp_path, monkeypatch
):
    # An extraction's identity does not depend on how much is there; that of arrays would.
    monkeypatch.setattr("cpsae.store.reader.Store.identity", "the same")
    heard = []
    fit(partial, SETTINGS, out=tmp_path / "a", allow_partial=True, on_event=heard.append)
    assert any("no evaluation rows yet" in getattr(event, "text", "") for event in heard)
    summary = read_strictly((tmp_path / "a" / "summary.json").read_text())
    assert summary["explained_variance"] is None
    assert summary["evaluation_rows"] == 0
    read_strictly((tmp_path / "a" / "evaluation.json").read_text())

    stop = {"should_stop": lambda: True, "allow_partial": True}
    assert isinstance(fit(partial, SETTINGS, out=tmp_path / "b", **stop), Stopped)  # type: ignore[arg-type]
    for chunk in absent(plain_store):
        shutil.copy(plain_store.path / chunk.key, partial / chunk.key)
    mark_complete(partial, True)
    heard.clear()
    fit(partial, SETTINGS, out=tmp_path / "b", on_event=heard.append)
    assert "keeps to the 3 chunks that it was begun with, of the store's 11" in heard[0].text
    assert (tmp_path / "a" / "sae.safetensors").read_bytes() == (
        tmp_path / "b" / "sae.safetensors"
    ).read_bytes()

    # And once the store is whole, `evaluate` measures what could not be measured before.
    result = evaluate(tmp_path / "a", partial)
    assert result.metrics["evaluation_rows"] == 50
    written = read_strictly((tmp_path / "a" / "evaluation.json").read_text())
    assert written.items() >= result.metrics.items()


def test_a_chunk_that_is_gone_is_not_passed_over(partial, plain_store, tmp_path, monkeypatch):
    monkeypatch.setattr("cpsae.store.reader.Store.identity", "the same")
    out = tmp_path / "r"
    fit(plain_store.path, SETTINGS, out=out, should_stop=lambda: True)
    with pytest.raises(DamagedStoreError, match="this run was begun with it"):
        fit(partial, SETTINGS, out=out, allow_partial=True)


def test_evaluate_gives_what_the_summary_says(unbroken, plain_store):
    result = evaluate(unbroken)
    summary = json.loads((unbroken / "summary.json").read_text())
    assert summary.items() >= result.metrics.items()
    assert open_store(plain_store.path).identity == plain_store.identity


GOLDEN = {
    "paper": {"kind": "competitive", "growth": "hybrid"},
    "baseline": {"kind": "relu", "growth": "none"},
}
VALUES = {
    "paper": [0.794974, 0.708132, 0.569365, 0.48403],
    "baseline": [2.722145, 1.300575, 0.471151, 0.662193],
}


def course_of(run):
    """Losses of steps 1, 20 and 45, and the held-out explained variance."""
    losses = {line["step"]: line["loss"] for line in lines_of(run)}
    summary = json.loads((run / "summary.json").read_text())
    return [losses[1], losses[20], losses[45], summary["explained_variance"]]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(plain_store, tmp_path, name):
    """What these runs gave when the values were written: last bits differ from CPU to CPU."""
    fit(plain_store.path, FitSettings(**{**COMMON, **GOLDEN[name]}), out=tmp_path / "r")
    assert course_of(tmp_path / "r") == pytest.approx(VALUES[name], rel=1e-3)
