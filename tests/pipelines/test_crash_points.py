"""The extraction and the fit recover from a power cut and a kill at any moment. Here a part of all
states is tried; `python pipelines/crash_points.py` tries them all."""

import os
import random
from pathlib import Path

import crash_points
import pytest
import torch
from crash_recorder import Recorder
from crash_states import key_of, states

from cpsae.durable import make_folders, write_atomic


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_extract_and_fit_recover(tmp_path):
    said = []
    outcomes = crash_points.try_stages(tmp_path, 8, say=said.append)
    for outcome in outcomes:
        assert outcome.failures == []
        assert outcome.tried == outcome.recovered == 8
        assert outcome.kills_made_durable == 8
    extraction, training = outcomes
    assert extraction.cut_points > 400 and extraction.states > 250
    assert training.cut_points > 60 and training.states > 35


def left_of(folder: Path, work):
    """All that may be left of the file `a`, whose old bytes are durable."""
    (folder / "a").write_bytes(b"old!")
    recorder = Recorder(folder)
    with recorder.recording():
        work(folder / "a")
    found = [state for cut in recorder.cuts for _, state in states(cut, random.Random(0))]
    return {state.get("a") for state in found}, found


def test_what_is_written_atomically_is_the_old_or_the_new(tmp_path):
    contents, _ = left_of(tmp_path, lambda path: write_atomic(path, b"new!"))
    assert contents == {b"old!", b"new!"}


def test_what_is_not_synced_may_be_torn_empty_or_zeros(tmp_path):
    """The harness itself: a writer that forgets something is found out."""

    def without_fsync(path):
        (path.parent / "b").write_bytes(b"new!")
        os.replace(path.parent / "b", path)  # noqa: PTH105

    contents, _ = left_of(tmp_path, without_fsync)
    assert contents == {b"old!", b"new!", b"ne", b"", bytes(4)}


def test_bytes_added_to_a_file_may_be_lost_but_not_those_before(tmp_path):
    def append(path):
        with path.open("ab") as file:
            file.write(b"more")
            file.flush()
            os.fsync(file.fileno())

    contents, _ = left_of(tmp_path, append)
    assert contents == {b"old!", b"old!mo", b"old!" + bytes(4), b"old!more"}


def test_a_folder_is_there_for_sure_once_its_parent_is_synced(tmp_path):
    _, found = left_of(tmp_path, lambda path: (path.parent / "f").mkdir())
    assert {"f" in state for state in found} == {True, False}
    inner = tmp_path / "inner"
    inner.mkdir()
    recorder = Recorder(inner)
    with recorder.recording():
        make_folders(inner / "f/g")
    assert all("f/g" in state for _, state in states(recorder.cuts[-1], random.Random(0)))


def test_states_are_equal_but_for_names_and_bytes_of_temporaries():
    one = {"a": b"1", ".a.17-0123abcd.tmp": b"x", ".lock": b"17"}
    assert key_of(one) == key_of({"a": b"1", ".a.99-ffffffff.tmp": b"", ".lock": b""})
    assert key_of(one) != key_of({"a": b"2", ".a.17-0123abcd.tmp": b"x"})
    assert key_of(one) != key_of({"a": b"1"})
