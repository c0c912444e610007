"""The baseline: latents are the encoder's outputs, a = f (METHOD section 1)."""

import torch.nn.functional as F
from torch import Tensor

from cpsae.sae.kind import Latents, Weights
from cpsae.sae.l1 import L1Kind


class ReLU(L1Kind):
    """a = f = ReLU(W_enc x + b_enc), with the L1 term of Eq. 2."""

    name = "relu"

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        f = F.linear(x, w["w_enc"], w["b_enc"]).relu()
        return Latents(raw=f, competed=f)
