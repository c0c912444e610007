"""Files of safetensors, read and written."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import safetensors.torch
import torch

from cpsae.durable import write_stream

_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names in files, in the order that files have."""
CHECKSUM = "checksum"
"""Where a JSON object that stands beside a file of tensors has `checksum_of` them both."""

_ALIGNMENT = 8
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Streamed:
    """A tensor that need not be in memory as a whole."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[torch.Tensor]]
    """Makes its consecutive blocks along the first dimension, or all of it."""

    @property
    def bytes(self) -> int:
        """All of it."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, by name, on the CPU: memory is taken as they are looked at, and what
    the file's name stands for later does not matter. Raises OSError, SafetensorError or
    ValueError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the library opens no name that is not UTF-8
        return safetensors.torch.load(path.read_bytes())
    return safetensors.torch.load_file(path)


def crc32c_of(path: Path) -> int:
    """CRC-32C of a file, in little memory. Raises OSError."""
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            checksum = google_crc32c.extend(checksum, block)
    return checksum


def checksum_of(beside: Mapping[str, Any], tensors: int) -> str:
    """CRC-32C (hex) of the CRC-32C of a file of tensors and of the JSON object beside it, in the
    order that it has in its own file, but for the checksum in it."""
    said = [tensors, {key: value for key, value in beside.items() if key != CHECKSUM}]
    return f"{google_crc32c.value(json.dumps(said).encode()):08x}"


def write_tensors(path: Path, tensors: Mapping[str, Streamed]) -> int:
    """Write a file of tensors, whole or not at all, block by block: the bytes that
    safetensors' own `save` gives. Their CRC-32C. Raises DiskError where the disk is full or may not
    be written."""
    checksum = 0

    def summed() -> Iterator[Any]:
        nonlocal checksum
        for piece in _pieces(tensors):
            if len(piece):
                checksum = google_crc32c.extend(checksum, piece)
            yield piece

    write_stream(path, summed())
    return checksum


def in_memory(tensors: Mapping[str, torch.Tensor]) -> dict[str, Streamed]:
    """Tensors that are at hand, to be written."""

    def one(tensor: torch.Tensor) -> Streamed:
        return Streamed(tensor.dtype, tuple(tensor.shape), lambda: iter([tensor]))

    return {name: one(tensor) for name, tensor in tensors.items()}


def go_through(tensors: Mapping[str, Streamed]) -> None:
    """Make all blocks in the order in which they are written, for processes that have a part in
    making them."""
    for name in _order(tensors):
        for _ in tensors[name].blocks():
            pass


def _pieces(tensors: Mapping[str, Streamed]) -> Iterator[Any]:
    names = _order(tensors)
    header, end = {}, 0
    for name in names:
        tensor = tensors[name]
        offsets = [end, end + tensor.bytes]
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        end = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in names:
        for block in tensors[name].blocks():
            flat = block.detach().cpu().contiguous().reshape(-1)
            raw = flat.view(torch.uint8).numpy()  # numpy knows no bfloat16
            raw.flags.writeable = False  # the checksum's C code takes read-only buffers alone
            yield raw


def _order(tensors: Mapping[str, Streamed]) -> list[str]:
    dtypes = list(_DTYPES)
    return sorted(tensors, key=lambda name: (dtypes.index(tensors[name].dtype), name))
