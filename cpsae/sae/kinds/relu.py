"""The baseline: latents are the encoder's outputs, a = f (METHOD section 1)."""

from typing import ClassVar

from torch import Tensor

from cpsae.sae.affine import affine
from cpsae.sae.form import Form
from cpsae.sae.kind import Latents, Weights
from cpsae.sae.l1 import L1Kind


class ReLU(L1Kind):
    """a = f = ReLU(W_enc x + b_enc), with the L1 term of Eq. 2."""

    name = "relu"
    works_split = True
    keeps_f: ClassVar[bool] = True

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        f = affine(x, w["w_enc"], w["b_enc"]).relu()
        return Latents(raw=f, competed=f)

    def form(self, w: Weights) -> Form:  # noqa: ARG002
        """ReLU."""
        return Form("relu")

    def by_hand(self) -> bool:
        """Always."""
        return True

    def compete_into(self, f_bM: Tensor, a_bM: Tensor) -> None:
        """Nothing: a is f."""

    def pull_back(self, f_bM: Tensor, a_bM: Tensor, g_bM: Tensor) -> None:
        """Nothing: the same gradient."""
