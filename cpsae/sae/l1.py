"""The L1 term of Eq. 2, for the kinds that have one."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from cpsae.sae.kind import Kind, KindSettings, Latents, Weights
from cpsae.sae.losses import Loss, sparsity


class L1Settings(KindSettings):
    """Weight and place of the L1 term."""

    l1: float = Field(0.04, ge=0)
    """lambda of Eq. 2."""
    l1_on: Literal["competed", "raw"] = "competed"
    """The term is on a (Eq. 2) or on f (reading 11)."""


class L1Kind(Kind):
    """A kind whose loss is Eq. 2: squared error + lambda * L1. Its `Settings` is an L1Settings."""

    Settings = L1Settings
    settings: L1Settings

    works_in_groups: ClassVar[bool] = True
    keeps_f: ClassVar[bool] = False
    """Whether a is f itself: one tensor."""

    def by_hand(self) -> bool:
        """Whether `compete_into` and `pull_back` say all of how a comes from f."""
        return False

    def compete_into(self, f_bM: Tensor, a_bM: Tensor) -> None:
        """Write a of some rows, from their f = ReLU(W_enc x + b_enc), which stays as it is."""
        raise NotImplementedError

    def pull_back(self, f_bM: Tensor, a_bM: Tensor, g_bM: Tensor) -> None:
        """Turn the gradient of the loss with respect to a into that with respect to f, in place;
        any number where f is 0."""
        raise NotImplementedError

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:  # noqa: ARG002
        """Parts: mse and l1 or, where f is penalised in place of a, mse and penalty."""
        on_a = self.settings.l1_on == "competed"
        own = sparsity(latents.competed if on_a else latents.raw)
        penalty = self.group.sum_of_features(own)
        return self.total(self.mse(x_BD, x_hat_BD), penalty)

    def total(self, mse: Tensor, penalty: Tensor) -> Loss:
        """Eq. 2."""
        name = "l1" if self.settings.l1_on == "competed" else "penalty"
        return Loss(mse + self.settings.l1 * penalty, {"mse": mse, name: penalty})
