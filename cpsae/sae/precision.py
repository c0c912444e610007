"""Half precision, where products are made in it, is for products alone."""

import torch
from torch import Tensor

_HALF = (torch.bfloat16, torch.float16)


def widen(values: Tensor) -> Tensor:
    """float32 for half precision; float32 and float64 as they are. For exponentials and sums."""
    return values.float() if values.dtype in _HALF else values
