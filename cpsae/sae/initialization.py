"""Initial weights (reading 20), the same on every device for one seed.

Names: N features, D dimensions.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from cpsae.sae.kind import Spec


def initialize(
    specs: Mapping[str, Spec],
    d: int,
    n: int,
    how: Literal["tied", "uniform"] = "tied",
    b_dec: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Weights before the first update, on the CPU, by the names of `specs`.

    tied: decoder rows random unit vectors, the encoder equal to them, b_dec as given (the mean of
    the normalised training rows; None: 0). uniform: both matrices in +-1/sqrt(d), decoder rows
    then scaled to unit norm, b_dec 0 whatever is given. All other weights begin as their Spec says.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    weights = {name: spec.tensor(d, n) for name, spec in specs.items()}
    if how == "tied":
        weights["w_dec"] = unit_rows(torch.randn(n, d, generator=generator))
        weights["w_enc"] = weights["w_dec"].clone()
        if b_dec is not None:
            weights["b_dec"] = b_dec.detach().to("cpu", torch.float32, copy=True)
    else:
        weights["w_enc"] = _uniform(n, d, generator)
        weights["w_dec"] = unit_rows(_uniform(n, d, generator))
    return weights


def unit_rows(w_ND: Tensor) -> Tensor:
    """Rows scaled to unit L2 norm; a row of zeros stays."""
    norms: Tensor = torch.linalg.vector_norm(w_ND, dim=1, keepdim=True)
    return w_ND / norms.clamp_min(1e-12)


def _uniform(n: int, d: int, generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(d)
    weights: Tensor = (2 * torch.rand(n, d, generator=generator) - 1) * bound
    return weights
