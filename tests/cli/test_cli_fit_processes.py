"""`cpsae fit` as torchrun starts it: who speaks and writes, stops, resumes, and what ends all."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import ENOUGH, ended, start
from safetensors.torch import load_file

LONG, SHORT = 3000, 60


@pytest.fixture
def fit(finished, tmp_path):
    """fit(*options, count=2) starts that many on a small store, each in a folder of its own; later
    options win."""

    def run(*options: object, count: int = 2) -> "list[subprocess.Popen[str]]":
        folders = [tmp_path / f"at-{rank}" for rank in range(count)]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        arguments = ["-m", "cpsae", "fit", "--store", finished, "--out", tmp_path / "run"]
        sizes = ["--steps", SHORT, "--batch-size", 65, "--device", "cpu", "--preset", "batchtopk"]
        often = ["--set", "k=4", "--set", "checkpoint_every=10", "--set", "log_every=5"]
        return start([*arguments, *sizes, *often, *options], count, folders)

    return run


def codes(done):
    return [one.returncode for one in done]


def until_it_trains(started, folder):
    began = time.monotonic()
    while not list((folder / "checkpoints").glob("step-*")):
        assert all(process.poll() is None for process in started), ended(started)
        assert time.monotonic() - began < ENOUGH
        time.sleep(0.02)


def same_weights(one, other):
    weights, others = (load_file(run / "sae.safetensors") for run in (one, other))
    for key, weight in weights.items():
        gap = (others[key] - weight).abs().max()
        assert gap <= 1e-3 * max(1.0, float(weight.abs().max())), key


def test_the_first_alone_speaks_and_writes(fit, tmp_path) -> None:
    first, second = ended(fit("--json", "--out", "run", "--track", "tensorboard"))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert json.loads(first.stdout)["steps"] == SHORT and "run folder: run" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")
    assert (tmp_path / "at-0/run/summary.json").exists()
    assert list((tmp_path / "at-1").iterdir()) == []
    began, shown = time.monotonic(), tmp_path / "at-0/run/tensorboard"
    while not shown.exists() or len(list(shown.iterdir())) != 1:  # its process may be slower
        assert time.monotonic() - began < ENOUGH
        time.sleep(0.05)
    again = ended(fit("--json", "--out", "run"))
    assert codes(again) == [0, 0]
    assert "run is complete" in again[0].stderr and again[1].stderr == again[1].stdout == ""


def test_print_config_once(fit) -> None:
    first, second = ended(fit("--print-config"))
    assert "batch_size = 65" in first.stdout and second.stdout == ""


@pytest.mark.parametrize(
    ("before", "after", "split", "then"),
    [
        (2, 1, "data", "data"),
        (1, 2, "data", "data"),
        (2, 2, "data", "data"),
        (2, 1, "features", "features"),
        (2, 2, "data", "features"),
        (2, 2, "features", "features"),
    ],
)
def test_a_stopped_run_goes_on_with_another_number(
    fit, tmp_path, before, after, split, then
) -> None:
    """Whichever of them hears the signal, all stop at the same step."""
    steps = ("--steps", 400, "--split", then)
    started = fit(*steps, "--split", split, count=before)
    until_it_trains(started, tmp_path / "run")
    started[-1].send_signal(signal.SIGTERM)
    stopped = ended(started)
    if codes(stopped) != [0] * before:  # a busy machine may hear it after the end
        assert stopped[-1].returncode == 128 + signal.SIGTERM, stopped
        assert all(code > 128 for code in codes(stopped))
        assert "run the same command again to continue" in stopped[0].stderr
    done = ended(fit(*steps, count=after))
    assert codes(done) == [0] * after, done
    same = (before, split) == (after, then)
    if not same:
        assert f"begun by {before} process" in done[0].stderr
    count = after if same else 1
    assert codes(ended(fit(*steps, "--out", tmp_path / "whole", count=count))) == [0] * count
    same_weights(tmp_path / "run", tmp_path / "whole")
    if same:
        ends = [(tmp_path / at / "sae.safetensors").read_bytes() for at in ("run", "whole")]
        assert ends[0] == ends[1]


@pytest.mark.parametrize(("rank", "split"), [(0, "data"), (1, "data"), (1, "features")])
def test_one_that_is_killed_ends_the_other(fit, tmp_path, rank, split) -> None:
    started = fit("--steps", LONG, "--split", split)
    until_it_trains(started, tmp_path / "run")
    started[rank].kill()
    done = ended(started)
    left = done[1 - rank]
    assert done[rank].returncode == -signal.SIGKILL and left.returncode == 1
    *_, last = left.stderr.splitlines()
    assert last.startswith(f"error: process {1 - rank} of 2: another one is gone")
    assert "run the same command again" in last and "Traceback" not in left.stderr
    if rank == 0:
        assert left.stderr.count("\n") == 1
    assert list((tmp_path / "run/checkpoints").glob("step-*"))


def test_what_the_first_refuses_ends_all(fit) -> None:
    assert codes(ended(fit())) == [0, 0]
    first, second = ended(fit("--lr", 0.5))
    assert (first.returncode, second.returncode) == (1, 1)
    assert "error: " in first.stderr and "lr" in first.stderr
    assert second.stderr.startswith("error: process 1 of 2: another one is gone")
    assert "Traceback" not in first.stderr + second.stderr and second.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--follow",), "--follow: 2 processes cannot train beside an extraction"),
        (("--batch-size", 1), "batch_size 1: is below the number of processes"),
        (("--device", "cuda:0"), "device 'cuda:0': 2 processes cannot share a GPU"),
    ],
)
def test_what_several_cannot_do(fit, tmp_path, options, text) -> None:
    for done in ended(fit(*options)):
        assert done.returncode == 1 and done.stderr.startswith(f"error: {text}"), done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_sweep(fit, tmp_path) -> None:
    first, second = ended(fit("--sweep", "seed=0,1", "--json"))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert len(json.loads(first.stdout)["members"]) == 2
    assert (second.stdout, second.stderr) == ("", "")
    alone = ended(fit("--seed", 1, "--out", tmp_path / "alone", count=1))
    assert codes(alone) == [0]
    same_weights(tmp_path / "run/seed=1", tmp_path / "alone")


def test_more_processes_than_features_at_first(fit, tmp_path) -> None:
    first, second = ended(fit("--split", "features", "--n-latents", 7, "--set", "growth=hybrid"))
    assert codes([first, second]) == [1, 1]
    assert first.stderr.startswith("error: n_latents 7: 2 processes cannot share the features")
    assert second.stderr.startswith("error: process 1 of 2: another one is gone")
    assert first.stderr.count("\n") == second.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_sweep_of_which_one_diverges(fit, tmp_path) -> None:
    first, second = ended(fit("--sweep", "lr=0.001,1e30"))
    assert (first.returncode, second.returncode) == (1, 1)
    for done in (first, second):
        assert "1 of 2 runs diverged, the others are complete" in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "run/lr=0.001/summary.json").exists()


def test_torchrun(finished, tmp_path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "cpsae", "fit", "--store", finished, "--out", tmp_path / "run", "--json"]
    sizes = ["--steps", SHORT, "--batch-size", 64, "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, command + sizes)],
        capture_output=True,
        text=True,
        timeout=ENOUGH,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(tmp_path / "run")
