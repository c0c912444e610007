"""Between numpy and torch. numpy has no bfloat16 that torch would take, nor torch one that numpy
would: the bits are handed over as integers and named again on the other side."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

TORCH_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""The types that models compute in and stores hold, by their name."""
_NUMPY_DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}
NUMPY_BITS = {2: np.int16, 4: np.int32}
TORCH_BITS = {2: torch.int16, 4: torch.int32}
"""Integers of as many bytes as a value, for both."""


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def tensor_of(rows: npt.NDArray[Any]) -> torch.Tensor:
    """An array of one of `TORCH_DTYPES` as a tensor: over the same memory, or over a copy where
    that is read-only, as the rows of a store are."""
    bits = rows.view(NUMPY_BITS[rows.dtype.itemsize])
    writable = bits if bits.flags.writeable else bits.copy()
    return torch.from_numpy(writable).view(TORCH_DTYPES[rows.dtype.name])


def from_numpy(rows: npt.NDArray[Any]) -> torch.Tensor:
    """An array of any dtype that torch has, bfloat16 included, as a tensor; copied where it is
    read-only or laid out otherwise."""
    if rows.dtype.name == "bfloat16":
        return tensor_of(np.ascontiguousarray(rows))
    return torch.from_numpy(np.require(rows, requirements=["C", "W"]))


def array_of(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """The inverse, for a tensor on the CPU: over the same memory."""
    bits = tensor.view(TORCH_BITS[tensor.dtype.itemsize]).numpy()
    return bits.view(_NUMPY_DTYPES[dtype_name(tensor.dtype)])
