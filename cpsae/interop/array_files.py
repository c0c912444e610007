"""Arrays in .npy and .safetensors files, mapped."""

from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import ml_dtypes
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cpsae.errors import SourceError, first_line
from cpsae.interop.rows import Array, FoundRows, as_rows
from cpsae.tensors import TORCH_DTYPES, array_of, dtype_name

UNREADABLE = (OSError, ValueError, TypeError, EOFError, SyntaxError, TokenError, MemoryError)
"""What numpy raises for damaged files of its own: their headers are literals of Python."""


def read_npy(files: Sequence[Path], tensor: str | None) -> FoundRows:
    """Raises SourceError where a file is damaged, or holds objects."""
    if tensor is not None:
        raise SourceError(f"{files[0]}: a .npy file holds one array; leave --tensor out")
    arrays, notes = [], []
    for path in files:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE as error:
            raise SourceError(f"{path}: cannot be read ({first_line(error)})") from None
        if array.dtype == np.dtype("V2"):  # numpy has no name for what ml_dtypes calls bfloat16
            notes = [f"{path}: values of two nameless bytes are taken for bfloat16"]
            array = array.view(ml_dtypes.bfloat16)
        arrays.append(array)
    return FoundRows(as_rows(str(files[0]), arrays), tuple(files), notes=tuple(notes))


def read_safetensors(files: Sequence[Path], tensor: str | None) -> FoundRows:
    """The tensor of that name; where none is given, the one of rows that there is. Raises
    SourceError where a file is damaged, or holds several and none is named."""
    arrays, name = [], tensor
    for path in files:
        try:
            with safe_open(path, framework="pt") as opened:  # maps the file
                name = name or _only_one(path, opened)
                arrays.append(_as_array(path, name, opened.get_tensor(name)))
        except (SafetensorError, OSError, ValueError) as error:
            there = f" (named {name})" if name else ""
            raise SourceError(f"{path}{there}: cannot be read ({first_line(error)})") from None
    return FoundRows(as_rows(str(files[0]), arrays), tuple(files), hook_name=name)


def _only_one(path: Path, opened: Any) -> str:
    shapes = {str(name): opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    fitting = [name for name, shape in shapes.items() if len(shape) in (2, 3)]
    if len(fitting) != 1:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items()))
        raise SourceError(
            f"{path}: holds {len(fitting)} tensors that may be rows; name one with --tensor: "
            f"{told or 'there is none'}"
        )
    return fitting[0]


def _as_array(path: Path, name: str, tensor: Tensor) -> Array:
    if tensor.dtype == torch.float64:
        return tensor.numpy()
    if dtype_name(tensor.dtype) not in TORCH_DTYPES:
        raise SourceError(f"{path}: {name}: expected floats, got {dtype_name(tensor.dtype)}")
    return array_of(tensor)
