"""Tensors written block by block, against what safetensors writes and reads."""

from functools import partial

import pytest
import safetensors.torch
import torch

from cpsae.tensor_files import Streamed, go_through, in_memory, load_tensors, write_tensors

TYPES = [torch.int64, torch.float64, torch.float32, torch.int32, torch.bfloat16, torch.float16]
TYPES += [torch.int16, torch.int8, torch.uint8, torch.bool]


def some():
    tensors = {f"{i % 3}-{dtype}": torch.ones(i, 3).to(dtype) for i, dtype in enumerate(TYPES)}
    return {**tensors, "é": torch.tensor(2.5), "turned": torch.arange(6.0).reshape(2, 3).T}


def test_the_bytes_are_those_of_the_library(tmp_path):
    write_tensors(tmp_path / "t", in_memory(some()))
    plain = {name: tensor.contiguous() for name, tensor in some().items()}
    assert (tmp_path / "t").read_bytes() == safetensors.torch.save(plain)
    found = load_tensors(tmp_path / "t")
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


def test_blocks_are_asked_for_in_the_order_of_the_file(tmp_path):
    whole, asked = torch.arange(12.0).reshape(6, 2), []

    def blocks(name):
        for block in whole.split(4):
            asked.append((name, len(block)))
            yield block

    tensors = {n: Streamed(torch.float32, (6, 2), partial(blocks, n)) for n in ("b", "a")}
    write_tensors(tmp_path / "t", tensors)
    assert torch.equal(load_tensors(tmp_path / "t")["a"], whole)
    written = list(asked)
    asked.clear()
    go_through(tensors)
    assert asked == written == [("a", 4), ("a", 2), ("b", 4), ("b", 2)]


def test_nothing_is_left_of_what_fails(tmp_path):
    def broken():
        yield torch.zeros(1)
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_tensors(tmp_path / "t", {"a": Streamed(torch.float32, (2,), broken)})
    assert not list(tmp_path.iterdir())
