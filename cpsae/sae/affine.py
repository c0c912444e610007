"""The encoder's product, for any number of features as fast as for the next multiple of 16."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGNED = 16
"""Numbers of float32 in a cache line: CPUs write rows that begin elsewhere 10 % more slowly."""


def affine(x: Tensor, w_MD: Tensor, b_M: Tensor) -> Tensor:
    """x @ w.T + b, (..., M). On a CPU, where no gradient is asked for, rows (B, D) are answered
    with rows that lie as far apart as `row_stride` says."""
    plain = torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)
    stride = row_stride(len(b_M))
    if plain or x.device.type != "cpu" or x.dim() != 2 or stride == len(b_M):
        return F.linear(x, w_MD, b_M)
    out = x.new_empty((len(x), stride))[:, : len(b_M)]
    return torch.addmm(b_M, x, w_MD.T, out=out)


def row_stride(m: int) -> int:
    """m or a little more: how far apart rows of m numbers lie best."""
    return -(-m // _ALIGNED) * _ALIGNED
