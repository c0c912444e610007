"""Killed at any moment and run again, an extraction ends with the bytes of an unbroken one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import chunks_of, content_of

from cpsae.stages.extract import extract
from cpsae.store import verify_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest

KILLS = int(os.environ.get("CPSAE_KILLS", "4"))
VECTORS = "12000"
Start = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(extract_arguments) -> Start:
    """start(store) begins the command in a process of its own."""

    def begin(store: Path) -> "subprocess.Popen[str]":
        arguments = [*extract_arguments(store), "--vectors", VECTORS]
        return subprocess.Popen(
            [sys.executable, "-m", "cpsae", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory) -> tuple[dict[str, str], float]:
    """The chunk files of an extraction that nothing stopped, and how many seconds it took."""
    store = tmp_path_factory.mktemp("unbroken") / "acts.zarr"
    began = time.monotonic()
    process = start(store)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return chunks_of(store), time.monotonic() - began


def wait_for_chunk(process: "subprocess.Popen[str]", store: Path, number: int) -> None:
    """Until `number` more chunk files, or temporaries of them, are there (or the process ended)."""
    folder = store / "activations" / "c"

    def count() -> int:
        return sum(1 for _ in folder.rglob("*0*")) if folder.exists() else 0

    before = count()
    while process.poll() is None and count() < before + number:
        time.sleep(0.001)


def test_kills_at_random_moments_leave_no_trace(start, unbroken, tmp_path) -> None:
    expected, seconds = unbroken
    moments = random.Random(KILLS)
    kills, store = 0, tmp_path / "0.zarr"
    while kills < KILLS:
        process = start(store)
        if kills % 2:
            wait_for_chunk(process, store, moments.randrange(2, 8))
            time.sleep(moments.random() * 0.02)
        else:
            time.sleep(moments.random() * seconds)
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:  # it ended before the kill: on to the next store
            assert process.returncode == 0
            assert chunks_of(store) == expected
            store = tmp_path / f"{kills}.zarr"
    process = start(store)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert chunks_of(store) == expected
    assert not verify_store(store).problems


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_signals_end_it_with_a_line_and_it_continues(
    start, unbroken, tmp_path, number, code
) -> None:
    store = tmp_path / "acts.zarr"
    process = start(store)
    wait_for_chunk(process, store, 4)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    last = errors.strip().splitlines()[-1]
    share = last.removeprefix("stopped at ").removesuffix(
        "%; run the same command again to continue"
    )
    assert 0 < int(share) < 100
    assert "Traceback" not in errors
    assert not list(store.rglob("*.tmp"))
    process = start(store)
    _, errors = process.communicate()
    assert "continuing: " in errors
    assert chunks_of(store) == unbroken[0]


def test_leftovers_of_a_kill_before_the_first_document(settings) -> None:
    path = Path(settings().store)
    path.mkdir()
    leftovers = [path / ".zarr.json.7-00000000.tmp", path / ".lock"]
    for leftover in leftovers:
        leftover.write_text("7\n")
    extract(settings(layer=0))
    assert not [leftover for leftover in leftovers if leftover.exists()]


def test_once_the_tokens_are_whole_no_corpus_is_needed(settings, corpus, tmp_path) -> None:
    copy = tmp_path / corpus.name
    shutil.copy(corpus, copy)
    chosen = settings(layer=0, dataset=str(copy))
    path = Path(extract(chosen).path)
    expected = chunks_of(path)
    undo(path, ["activations/c/0/0", "activations/c/2/0", "evaluation/activations/c/0/0"])
    copy.unlink()
    assert extract(chosen).computed_chunks == 3
    assert chunks_of(path) == expected


def test_before_that_it_is(settings, corpus, tmp_path) -> None:
    copy = tmp_path / corpus.name
    shutil.copy(corpus, copy)
    chosen = settings(layer=0, dataset=str(copy))
    path = Path(extract(chosen).path)
    undo(path, [], tokens_complete=False)
    before = content_of(path)
    copy.unlink()
    with pytest.raises(Exception, match=r"corpus\.jsonl: there is no such file or folder"):
        extract(chosen)
    assert content_of(path) == before


def test_threads_are_put_back(settings) -> None:
    import torch

    path = Path(extract(settings(layer=0)).path)
    manifest = read_manifest(Folder(path))
    threads = manifest.device.model_copy(update={"threads": torch.get_num_threads() + 1})
    from cpsae.store.metadata import write_manifest

    begun = manifest.model_copy(update={"device": threads, "complete": False})
    write_manifest(Folder(path), begun)
    before = torch.get_num_threads()
    extract(settings(layer=0))
    assert torch.get_num_threads() == before


def test_statistics_that_are_absent_are_computed_again(settings) -> None:
    chosen = settings(layer=0)
    path = Path(extract(chosen).path)
    expected = chunks_of(path)
    undo(path, ["statistics/norms/c/1", "statistics/summary/c/0/0"])
    assert extract(chosen).computed_chunks == 0
    assert chunks_of(path) == expected


def test_auto_is_what_the_store_was_begun_with(settings) -> None:
    path = Path(extract(settings(dtype="bfloat16", batch_contexts=4, attention="eager")).path)
    expected = chunks_of(path)
    undo(path, ["activations/c/0/0"])
    assert extract(settings()).computed_chunks == 1
    assert chunks_of(path) == expected


def undo(path: Path, keys: list[str], tokens_complete: bool = True) -> None:
    """Make a finished store one that was stopped before these files were written."""
    from cpsae.store.metadata import write_manifest

    marks = {"complete": False, "tokens_complete": tokens_complete}
    write_manifest(Folder(path), read_manifest(Folder(path)).model_copy(update=marks))
    for key in keys:
        (path / key).unlink()
