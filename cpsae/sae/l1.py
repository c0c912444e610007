"""The L1 term of Eq. 2, for the kinds that have one."""

from typing import Literal

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

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:  # noqa: ARG002
        """Parts: mse and l1 or, where f is penalised in place of a, mse and penalty."""
        on_a = self.settings.l1_on == "competed"
        mse = self.mse(x_BD, x_hat_BD)
        penalty = sparsity(latents.competed if on_a else latents.raw)
        parts = {"mse": mse, "l1" if on_a else "penalty": penalty}
        return Loss(mse + self.settings.l1 * penalty, parts)
