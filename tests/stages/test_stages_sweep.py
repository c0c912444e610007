"""Sweeps: every run as a fit by itself makes it, the store read once, stops and kills survived."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from strict_json import read_strictly

from cpsae.errors import DifferentSettingsError, NonFiniteError, RunError, SettingsError
from cpsae.events import Note
from cpsae.stages.fit import fit
from cpsae.stages.sweep import sweep
from cpsae.store import StorePart
from cpsae.training.loop import Stopped
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

COMMON = {
    "kind": "batchtopk",
    "steps": 45,
    "batch_size": 32,
    "n_latents": 40,
    "device": "cpu",
    "checkpoint_every": 20,
    "lr": 2e-3,
}
FILES = ("sae.safetensors", "sae.json", "summary.json", "evaluation.json", "config.json")


def of(*axes, **common):
    return members(parse_axes(axes), lambda chosen: FitSettings(**{**COMMON, **common, **chosen}))


def same(run, other):
    for name in FILES:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    logs = [[json.loads(line) for line in (r / "metrics.jsonl").open()] for r in (run, other)]
    for line in itertools.chain(*logs):
        del line["seconds"], line["rows_per_second"]
    assert logs[0] == logs[1]


@pytest.fixture(scope="module")
def singles(plain_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("singles")
    for member in of("k=2,4,8"):
        fit(plain_store.path, member.settings, out=folder / member.folder)
    return folder


def test_each_run_is_the_single_one_and_the_store_is_read_once(
    singles, plain_store, tmp_path, monkeypatch
):
    counts, rows = Counter(), StorePart.rows
    monkeypatch.setattr(StorePart, "rows", lambda s, c: counts.update([c.key]) or rows(s, c))
    fit(plain_store.path, of("k=2,4")[0].settings, out=tmp_path / "one")
    of_one_fit = dict(counts)
    counts.clear()
    result = sweep(plain_store.path, of("k=2,4,8"), out=tmp_path / "s")
    assert dict(counts) == of_one_fit
    for folder in ("k=2", "k=4", "k=8"):
        same(tmp_path / "s" / folder, singles / folder)
    written = read_strictly((tmp_path / "s/sweep.json").read_text())
    assert written == {"keys": result.keys, "members": result.members}
    assert written["keys"] == ["k"]
    assert [m["folder"] for m in written["members"]] == ["k=2", "k=4", "k=8"]
    assert [m["values"] for m in written["members"]] == [{"k": 2}, {"k": 4}, {"k": 8}]
    for member in written["members"]:
        path = singles / member["folder"] / "summary.json"
        assert member["summary"] == json.loads(path.read_text())


@pytest.mark.parametrize("every", [2, 3])
def test_stopped_and_continued_is_unbroken(singles, plain_store, tmp_path, every):
    asked = itertools.count(1)
    for _ in range(10):
        result = sweep(
            plain_store.path,
            of("k=2,4,8"),
            out=tmp_path / "s",
            should_stop=lambda: next(asked) % every == 0,
        )
        if not isinstance(result, Stopped):
            break
    for folder in ("k=2", "k=4", "k=8"):
        same(tmp_path / "s" / folder, singles / folder)


def test_runs_that_stand_at_different_steps_go_on_together(singles, plain_store, tmp_path):
    asked = iter([False, False, True])
    sweep(plain_store.path, of("k=2,4,8"), out=tmp_path / "s", should_stop=lambda: next(asked))
    shutil.rmtree(tmp_path / "s/k=4/checkpoints/step-000030")  # goes on from step 20
    shutil.rmtree(tmp_path / "s/k=8")  # begins
    sweep(plain_store.path, of("k=2,4,8"), out=tmp_path / "s")
    for folder in ("k=2", "k=4", "k=8"):
        same(tmp_path / "s" / folder, singles / folder)


def test_what_is_complete_is_left_alone_and_new_values_join(singles, plain_store, tmp_path):
    sweep(plain_store.path, of("k=2,4"), out=tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s/k=2").rglob("*")}
    heard = []
    sweep(plain_store.path, of("k=2,4,8"), out=tmp_path / "s", on_event=heard.append)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "s/k=2").rglob("*")}
    same(tmp_path / "s/k=8", singles / "k=8")
    assert len(json.loads((tmp_path / "s/sweep.json").read_text())["members"]) == 3
    heard.clear()
    sweep(plain_store.path, of("k=2,4,8"), out=tmp_path / "s", on_event=heard.append)
    assert heard == [Note(f"{tmp_path / 's'} is complete")]


_RUN = """
import sys, torch
torch.set_num_threads(1)
from cpsae.cli.main import main
sys.argv = ["cpsae", *sys.argv[1:]]
main()
"""


def test_killed_and_completed_is_unbroken(plain_store, tmp_path):
    options = [
        *("fit", "--store", plain_store.path, "--preset", "batchtopk", "--sweep", "k=2,4"),
        *("--steps", "600", "--batch-size", "32", "--n-latents", "40", "--device", "cpu"),
        *("--set", "checkpoint_every=20", "-q", "--out"),
    ]
    command = [sys.executable, "-c", _RUN, *map(str, options)]
    log = tmp_path / "killed/k=4/metrics.jsonl"
    for quota in (1, 10, 25):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > quota):
            time.sleep(0.002)
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed/k=4/summary.json").exists(), "the kills came too late"
    for folder in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], check=True, stdout=subprocess.DEVNULL)
    for folder in ("k=2", "k=4"):
        same(tmp_path / "killed" / folder, tmp_path / "whole" / folder)


def test_a_run_that_diverges_is_given_up_and_the_others_go_on(plain_store, tmp_path):
    chosen = of("lr=2e-3,1e38", k=4, warmup_steps=0, log_every=1)
    with pytest.raises(
        NonFiniteError, match=r"1 of 2 runs diverged.*lr=1e38: step \d+: "
    ) as caught:
        sweep(plain_store.path, chosen, out=tmp_path / "s")
    assert "\n" not in str(caught.value)
    good, bad = read_strictly((tmp_path / "s/sweep.json").read_text())["members"]
    assert good["summary"]["steps"] == 45
    assert bad["summary"] is None and "is no finite number" in bad["error"]
    fit(plain_store.path, chosen[0].settings, out=tmp_path / "single")
    same(tmp_path / "s/lr=2e-3", tmp_path / "single")


def test_folders_name_keys_as_given_and_values_as_typed():
    found = of("lr=1e-3,0.0020", "k=2,4", "seed=0,1")
    assert len(found) == 8
    assert found[0].folder == "lr=1e-3,k=2,seed=0"
    assert found[-1].folder == "lr=0.0020,k=4,seed=1"
    assert found[-1].values == {"lr": 0.002, "k": 4, "seed": 1}
    assert found[-1].settings.method.k == 4


def test_other_settings_and_foreign_folders_are_refused(plain_store, tmp_path):
    sweep(plain_store.path, of("k=2,4"), out=tmp_path / "s")
    with pytest.raises(DifferentSettingsError, match="lr: 0.002, not 0.5"):
        sweep(plain_store.path, of("k=2,4", lr=0.5), out=tmp_path / "s")
    with pytest.raises(RunError, match="is a run, not a sweep"):
        sweep(plain_store.path, of("k=2,4"), out=tmp_path / "s/k=2")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/a.tex").touch()
    for fresh in (False, True):
        with pytest.raises(RunError, match="is no sweep"):
            sweep(plain_store.path, of("k=2,4"), out=tmp_path / "thesis", fresh=fresh)
    with pytest.raises(SettingsError, match="k = 41 is above n_latents"):
        sweep(plain_store.path, of("k=4,41"), out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_fresh_keeps_the_old_one(plain_store, tmp_path):
    sweep(plain_store.path, of("k=2,4"), out=tmp_path / "s")
    sweep(plain_store.path, of("k=2,4", lr=0.5), out=tmp_path / "s", fresh=True)
    assert (tmp_path / "s.old-1/k=2/summary.json").exists()
    assert (tmp_path / "s/k=2/summary.json").exists()
