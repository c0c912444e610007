"""BatchTopK whose latents compete through the dictionary: what a latent explains is taken from the
others before they are chosen, as in the locally competitive algorithm (Rozell et al. 2008), in one
step from the encoder's own choice.

Names: B rows, D dimensions, M enabled features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cpsae.sae.batch_topk import BatchTopKKind, BatchTopKSettings, follow
from cpsae.sae.dead_latents import RevivingKind
from cpsae.sae.kind import Latents, RunPlan, Spec, Weights


class LCASettings(BatchTopKSettings):
    """How strongly latents inhibit each other, and from when on."""

    inhibition: float = Field(0.3, ge=0, le=1)
    """eta: how much of what the first choice leaves is added, per decoder vector."""
    inhibition_from: float = Field(0.6, ge=0, le=1)
    """Part of the run after which training has it; before, it is BatchTopK."""
    inhibition_gradient: Literal["straight", "full"] = "straight"
    """straight: what inhibition adds counts as a constant; full: it is differentiated too."""


class LCABatchTopK(BatchTopKKind):
    """a = those of ReLU(z + eta W_dec^T (x - x_hat_0)) that BatchTopK keeps, where z are the
    encoder's pre-activations and x_hat_0 is what those of ReLU(z) reconstruct that it keeps."""

    name = "lca-batchtopk"
    Settings = LCASettings
    settings: LCASettings
    inference_settings: ClassVar[tuple[str, ...]] = ("k", "inhibition")
    state: ClassVar[Mapping[str, Spec]] = {
        **BatchTopKKind.state,
        "first_threshold": Spec("", dtype=torch.float64, saved="first_threshold"),
    }

    def __init__(self, settings: LCASettings, plan: RunPlan) -> None:
        """Raises SettingsError where k is above n."""
        super().__init__(settings, plan)
        self.inhibition_steps = round(settings.inhibition_from * plan.steps)

    def inhibits(self, updates: int) -> bool:
        """Whether the update after so many has inhibition."""
        return self.settings.inhibition > 0 and updates >= self.inhibition_steps

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        z = F.linear(x, w["w_enc"], w["b_enc"])
        f = z.relu()
        first = f.masked_fill(f <= self.tensors["first_threshold"].to(f.dtype), 0)
        if not self.settings.inhibition:
            return Latents(raw=f, competed=first)
        rest = (z + self._added(w, x, first)).relu()
        kept = rest.masked_fill(rest <= self.tensors["threshold"].to(f.dtype), 0)
        return Latents(raw=f, competed=kept)

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """x: (B, D). `kept` holds the smallest of the first choice and of the second."""
        first = super().encode_batch(w, x_BD)
        if not self.inhibits(self.updates):
            return first
        assert first.pre is not None, "BatchTopK gives pre-activations"
        with torch.set_grad_enabled(self.settings.inhibition_gradient == "full"):
            added = self._added(w, x_BD, first.competed)
        rest = (first.pre + added).relu()
        kept, values = self.keep_largest(rest, rest)
        both = None if first.kept is None else torch.stack([first.kept.min(), values.min()])
        return first._replace(competed=kept, kept=both)

    @torch.no_grad()
    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:
        """Take the smallest kept latents into both thresholds."""
        RevivingKind.after_step(self, step, rho, latents)
        if latents.kept is None:
            return
        if not self.inhibits(step - 1):
            follow(self.tensors["first_threshold"], latents.kept.min())
            return
        first, second = latents.kept
        follow(self.tensors["first_threshold"], first)
        follow(self.tensors["threshold"], second)

    def products_now(self) -> int:
        """Inhibition decodes once more and projects on the dictionary once; differentiated, each
        of the two costs two products more."""
        if not self.inhibits(self.updates):
            return self.products
        return self.products + (2 if self.settings.inhibition_gradient == "straight" else 6)

    def schedule_lengths(self) -> dict[str, float]:
        """Until when it is BatchTopK, and what that has."""
        return {**super().schedule_lengths(), "inhibition_from": self.inhibition_steps}

    def constants(self) -> dict[str, Any]:
        """With no inhibition where training has not come to it."""
        begun = bool(self.tensors["threshold"] > 0)
        return {**super().constants(), "inhibition": self.settings.inhibition if begun else 0.0}

    @classmethod
    def from_constants(cls, constants: Mapping[str, Any], d: int, n: int) -> Self:
        """Takes `k`, `inhibition` and both thresholds."""
        kind = super().from_constants(constants, d, n)
        if kind.tensors["first_threshold"] < 0:
            raise ValueError(f"first_threshold is {constants['first_threshold']}, not 0 or more")
        return kind

    def _added(self, w: Weights, x: Tensor, first: Tensor) -> Tensor:
        """eta W_dec^T (x - x_hat) (..., M), x_hat being what the first choice reconstructs."""
        rest = x - self.decode(w, first)
        return F.linear(rest, w["w_dec"]) * self.settings.inhibition
