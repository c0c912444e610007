"""Gated: whether a latent is on and how large it is have biases of their own (Rajamanoharan et al.
2024, arXiv 2404.16014).

Names: B rows, D dimensions, M enabled features.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cpsae.sae.form import Form
from cpsae.sae.kind import STANDARD, Kind, KindSettings, Latents, Spec, Weights
from cpsae.sae.losses import Loss, sparsity


class GatedSettings(KindSettings):
    """Weights of the terms on the gate."""

    l1: float = Field(0.04, ge=0)
    """Weight of the L1 norm of ReLU(gate)."""
    gate_coefficient: float = Field(1.0, ge=0)
    """Weight of the squared error of what ReLU(gate) alone reconstructs, through a decoder that
    this term does not train."""


class Gated(Kind):
    """a = ReLU(exp(r_mag) * W_enc x + b_mag) where W_enc x + b_gate > 0, else 0."""

    name = "gated"
    Settings = GatedSettings
    settings: GatedSettings
    weights: ClassVar[Mapping[str, Spec]] = {
        **STANDARD,
        "b_enc": Spec("n", saved="b_gate"),
        "r_mag": Spec("n"),
        "b_mag": Spec("n"),
    }
    products = 7
    works_in_groups = True
    works_split = True

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D). f is ReLU(gate)."""
        projected = F.linear(x, w["w_enc"])
        gate = (projected + w["b_enc"]).relu()
        size = (projected * w["r_mag"].exp() + w["b_mag"]).relu()
        return Latents(raw=gate, competed=size * (gate > 0).to(size.dtype))

    def form(self, w: Weights) -> Form:
        """Gated."""
        return Form("gated", {"b_gate": w["b_enc"], "b_mag": w["b_mag"]}, {"r_mag": w["r_mag"]})

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:
        """Parts: mse; penalty, the L1 norm of ReLU(gate); gate, the squared error of what that
        reconstructs."""
        mse = self.mse(x_BD, x_hat_BD)
        penalty = self.group.sum_of_features(sparsity(latents.raw))
        held = {name: weight.detach() for name, weight in w.items()}
        gate = self.mse(x_BD, self.decode(held, latents.raw))
        total = mse + self.settings.l1 * penalty + self.settings.gate_coefficient * gate
        return Loss(total, {"mse": mse, "penalty": penalty, "gate": gate})

    def begin(self, w: Weights, features: Tensor, directions_KD: Tensor, level_K: Tensor) -> None:
        """With sizes that begin at 0 where the gate opens."""
        super().begin(w, features, directions_KD, level_K)
        w["b_mag"][features] = -level_K

    def centred(self, w: Weights) -> dict[str, Tensor]:
        """Both biases take b_dec in."""
        shift = w["w_enc"] @ w["b_dec"]
        b_mag = w["b_mag"] - w["r_mag"].exp() * shift
        return {**w, "b_enc": w["b_enc"] - shift, "b_mag": b_mag}
