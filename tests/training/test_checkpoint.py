"""Checkpoints: whole or absent, the last few kept, broken ones one clear line."""

import errno
import json
import os

import pytest
import torch

from cpsae.durable import write_stream
from cpsae.errors import DiskError, RunError
from cpsae.tensor_files import in_memory
from cpsae.training.checkpoint import (
    Checkpoint,
    keep_last,
    list_checkpoints,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)


def some(step):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T * step, "v": torch.ones(2).double() / 3}
    return Checkpoint(step, tensors, {"feed": {"epoch": 1}, "temperature": 0.1 + 0.2})


def save(folder, step, keep):
    checkpoint = some(step)
    return save_checkpoint(folder, step, in_memory(checkpoint.tensors), checkpoint.state, keep)


def test_comes_back_exactly(tmp_path):
    path = save(tmp_path / "c", 500, keep=2)
    assert path.name == "step-000500"
    back = load_checkpoint(path)
    assert (back.step, back.state) == (500, some(500).state)
    for name, tensor in some(500).tensors.items():
        assert torch.equal(back.tensors[name], tensor)
        assert back.tensors[name].dtype == tensor.dtype


def test_keeps_the_last_and_removes_leftovers(tmp_path):
    leftover = tmp_path / ".step-000007.tmp"
    leftover.mkdir()
    for step in (999_990, 1_000_000, 10_000_000):
        save(tmp_path, step, keep=2)
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [
        1_000_000,
        10_000_000,
    ]
    assert not leftover.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    save(tmp_path, 5, keep=1)
    for name in ("step-old", "step-5.bak", "notes"):
        (tmp_path / name).mkdir()
    save(tmp_path, 6, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000006"]
    assert (tmp_path / "step-old").exists()
    assert list_checkpoints(tmp_path / "absent") == []


@pytest.mark.parametrize("failing", ["state.safetensors", "state.json"])
def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch, failing):
    before = save(tmp_path, 10, keep=1)

    def full(path, buffers):
        if path.name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_stream(path, buffers)

    for module in ("cpsae.durable", "cpsae.tensor_files"):
        monkeypatch.setattr(f"{module}.write_stream", full)
    with pytest.raises(DiskError, match="disk is full") as caught:
        save(tmp_path, 20, keep=1)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [before.name]
    assert load_checkpoint(before).step == 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.safetensors", b"\x10"),
        ("state.safetensors", None),
        ("state.json", b'{"step": 1'),
        ("state.json", b"[1, 2]"),
        ("state.json", b"{}"),
        ("state.json", b"\xff\xfe"),
        ("state.json", None),
    ],
)
def test_broken_ones_are_one_line(tmp_path, name, content):
    path = save(tmp_path, 1, keep=1)
    (path / name).unlink() if content is None else (path / name).write_bytes(content)
    with pytest.raises(RunError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "remove this folder to continue from the one before" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cut_short_anywhere_is_one_line(tmp_path):
    path = save(tmp_path, 1, keep=1)
    whole = (path / "state.safetensors").read_bytes()
    for length in range(0, len(whole), 11):
        (path / "state.safetensors").write_bytes(whole[:length])
        with pytest.raises(RunError):
            load_checkpoint(path)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_every_flipped_bit_is_found(tmp_path, name):
    """Or changes nothing: where it is in the name of the checksum itself, or in white space."""
    path = save(tmp_path, 1, keep=1)
    whole = (path / name).read_bytes()
    found = 0
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        (path / name).write_bytes(broken)
        try:
            back = load_checkpoint(path)
        except RunError:
            found += 1
        else:
            assert torch.equal(back.tensors["a"], some(1).tensors["a"])
            assert (back.step, back.state["feed"]) == (1, some(1).state["feed"])
    assert found > 7 * len(whole)


def test_one_without_a_checksum_is_from_before_there_was_one(tmp_path):
    path = save(tmp_path, 1, keep=1)
    state = json.loads((path / "state.json").read_text())
    del state["checksum"]
    (path / "state.json").write_text(json.dumps(state))
    assert load_checkpoint(path).state == some(1).state


def test_those_that_go_are_hidden_before_they_are_removed(tmp_path, monkeypatch):
    """A kill in the middle leaves no half of one that could be taken for a whole one."""
    for step in (1, 2):
        save(tmp_path, step, keep=2)
    with monkeypatch.context() as patch:
        patch.setattr("cpsae.training.checkpoint._remove", lambda _folders: None)
        keep_last(tmp_path, 1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002"]
    assert (tmp_path / ".step-000001.tmp/state.json").exists()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
