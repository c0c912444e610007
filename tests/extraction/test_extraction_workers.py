"""Several workers write one store, with the bytes that one alone gives."""

import os
import subprocess
import sys
import threading
import time

import pytest
from tiny import chunks_of

from cpsae.errors import GroupError, SettingsError
from cpsae.events import Advanced, Note, Started
from cpsae.extraction import machine, waiting
from cpsae.stages.extract import extract
from cpsae.store import open_store
from cpsae.workers import Worker


def test_two_workers_of_torchrun_give_the_bytes_of_one(extract_arguments, tmp_path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    stores = {"one": [], "two": launcher}
    outputs = {}
    for name, prefix in stores.items():
        arguments = [*extract_arguments(tmp_path / name), "--layer", "2", "--dtype", "bfloat16"]
        done = subprocess.run(
            [sys.executable, *prefix, "-m", "cpsae", *arguments, "--json"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        outputs[name] = done
    assert chunks_of(tmp_path / "two") == chunks_of(tmp_path / "one")
    assert open_store(tmp_path / "two").manifest.device.threads == 2
    assert outputs["two"].stdout.count('"path"') == 1, "one result, whatever the number of workers"
    assert outputs["two"].stderr.count("is complete") == 1
    for rank in (0, 1):
        told = f"this is worker {rank} of 2, counted from 0 (by RANK and WORLD_SIZE)"
        assert outputs["two"].stderr.count(told) == 1
    assert "this is worker" not in outputs["one"].stderr


def test_other_ranks_wait_for_the_tokens(settings) -> None:
    """The follower begins first, and only the leader makes the store."""
    chosen = settings(layer=0)
    heard, results = [], {}

    def follow() -> None:
        results["follower"] = extract(chosen, heard.append, Worker(1, 2, 1))

    follower = threading.Thread(target=follow)
    follower.start()
    deadline = time.monotonic() + 60
    while not any("waits for the tokens" in getattr(event, "text", "") for event in heard):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    events = []
    results["leader"] = extract(chosen, events.append, Worker(0, 2, 0))
    follower.join()
    parts = [results[name].computed_chunks for name in ("leader", "follower")]
    assert min(parts) >= 2 and sum(parts) == 5
    unbroken = extract(settings(layer=0, store=chosen.store + "2"))
    assert chunks_of(results["leader"].path) == chunks_of(unbroken.path)
    (started,) = (e for e in events if isinstance(e, Started) and e.work == "extract")
    assert started.total == 3300, "the leader reports the rows of all workers"
    assert [e for e in events if isinstance(e, Advanced)][-1].done == 3300


@pytest.mark.parametrize("rank", [0, 1])
def test_whoever_waits_for_nobody_says_so(settings, monkeypatch, rank) -> None:
    """RANK and WORLD_SIZE of an earlier launch: the others will never come."""
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.0)

    class Enough(Exception):
        """The test has seen what it waits for."""

    def hear(event: object) -> None:
        if isinstance(event, Note) and event.kind == "warning" and "waited" in event.text:
            raise Enough(event.text)

    worker = Worker(rank, 2, 0, ("RANK", "WORLD_SIZE"))
    with pytest.raises(Enough) as told:
        extract(settings(layer=0), hear, worker)
    text = str(told.value)
    assert f"worker {rank} of 2" in text and "unset RANK and WORLD_SIZE" in text
    assert ("worker 0 to settle the tokens" if rank else "chunks of the other workers") in text


@pytest.mark.parametrize("rank", [0, 1])
def test_whoever_waits_for_those_who_are_gone_ends_with_a_line(settings, monkeypatch, rank) -> None:
    """A leader, or a fellow, that was killed: the kernel has freed its lock."""
    for name in ("PATIENCE_SECONDS", "LOOK_SECONDS", "GIVE_UP_SECONDS"):
        monkeypatch.setattr(waiting, name, 0.0)
    chosen = settings(layer=0)
    with pytest.raises(GroupError, match=f"worker {rank} of 2.*gone.*start all workers again") as e:
        extract(chosen, worker=Worker(rank, 2, 0))
    assert "\n" not in str(e.value)
    monkeypatch.undo()
    whole = extract(settings(layer=0, store=chosen.store + "2"))
    assert chunks_of(extract(chosen).path) == chunks_of(whole.path)
    assert not (whole.path / ".workers").exists()


def test_whoever_is_at_work_is_waited_for(tmp_path) -> None:
    from cpsae.locks import fellow_lock, is_gone, remove_fellow_lock, writer_lock

    assert is_gone(tmp_path) and is_gone(tmp_path, fellows=True)
    with writer_lock(tmp_path, "store"), fellow_lock(tmp_path):
        assert not is_gone(tmp_path)
        with fellow_lock(tmp_path):
            assert not is_gone(tmp_path, fellows=True)
        assert not is_gone(tmp_path, fellows=True), "the other one is there still"
    assert is_gone(tmp_path) and is_gone(tmp_path, fellows=True)
    remove_fellow_lock(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_locks_nobody_is_known_to_be_gone(tmp_path, monkeypatch) -> None:
    import fcntl

    from cpsae.locks import fellow_lock, is_gone

    def unknown(_descriptor, _how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with fellow_lock(tmp_path):
        assert not is_gone(tmp_path, fellows=True)


def test_patience_begins_again_with_progress(monkeypatch) -> None:
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr("cpsae.extraction.waiting.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("cpsae.extraction.waiting.time.sleep", lambda _: None)
    heard = []
    patience = waiting.Patience(Worker(1, 2), "the tokens", heard.append, lambda: False)
    for done in (1, 2, 3, 3, 3, 3, 3, 4, 4, 4):
        patience.wait(done)
        heard.append(done)
    texts = [event if isinstance(event, int) else "told" for event in heard]
    assert texts == [1, 2, 3, 3, "told", 3, 3, 3, 4, 4, "told", 4]


def test_fresh_needs_a_single_worker(settings, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="--fresh: cannot be used with several workers"):
        extract(settings(), fresh=True)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Worker(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Worker(3, 4, 1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Worker(5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Worker(0, 1, 0)),  # a batch script, no srun
    ],
)
def test_who_one_is_stands_in_the_environment(monkeypatch, environment, expected) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    worker = Worker.from_environment()
    assert worker == expected
    assert worker.is_leader == (expected.rank == 0)


def test_several_workers_take_the_threads_of_a_single_one(monkeypatch) -> None:
    import torch

    cpu = torch.device("cpu")
    monkeypatch.setattr(machine, "_threads_of_a_single_worker", lambda: 12)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it
    assert machine.choose_threads(cpu, Worker(0, 2)) == 12
    assert machine.choose_threads(cpu, Worker()) == torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # as only a user does
    assert machine.choose_threads(cpu, Worker(0, 2)) == torch.get_num_threads()
    assert machine.choose_threads(torch.device("cuda"), Worker(0, 2)) is None


def test_asking_torch_for_its_threads(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine._threads_of_a_single_worker() >= 1
