"""Initial weights (reading 20), the same on every device for one seed.

Names: N features, D dimensions.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Parameters(NamedTuple):
    """Weights as training lays them out: one row a feature, so that an enabled prefix is one
    contiguous piece of memory. float32, in normalised space."""

    w_enc: Tensor
    """(N, D)"""
    b_enc: Tensor
    """(N,)"""
    w_dec: Tensor
    """(N, D), rows of unit norm: the columns of the paper's W_d"""
    b_dec: Tensor
    """(D,)"""


def initialize(
    d: int,
    n: int,
    how: Literal["tied", "uniform"] = "tied",
    b_dec: Tensor | None = None,
    seed: int = 0,
) -> Parameters:
    """Weights before the first update, on the CPU.

    tied: decoder rows random unit vectors, the encoder equal to them, b_dec as given (the mean of
    the normalised training rows; None: 0). uniform: both matrices in +-1/sqrt(d), decoder rows
    then scaled to unit norm, b_dec 0 whatever is given. b_enc is 0.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    start = torch.zeros(d)
    if how == "tied":
        w_dec = unit_rows(torch.randn(n, d, generator=generator))
        w_enc = w_dec.clone()
        if b_dec is not None:
            start = b_dec.detach().to("cpu", torch.float32, copy=True)
    else:
        w_enc = _uniform(n, d, generator)
        w_dec = unit_rows(_uniform(n, d, generator))
    return Parameters(w_enc=w_enc, b_enc=torch.zeros(n), w_dec=w_dec, b_dec=start)


def unit_rows(w_ND: Tensor) -> Tensor:
    """Rows scaled to unit L2 norm; a row of zeros stays."""
    norms: Tensor = torch.linalg.vector_norm(w_ND, dim=1, keepdim=True)
    return w_ND / norms.clamp_min(1e-12)


def _uniform(n: int, d: int, generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(d)
    weights: Tensor = (2 * torch.rand(n, d, generator=generator) - 1) * bound
    return weights
