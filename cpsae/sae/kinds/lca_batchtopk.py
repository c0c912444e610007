"""BatchTopK whose latents compete through the dictionary when it is used: what the first choice of
latents explains is taken from all others, and the choice is made again. One step of the locally
competitive algorithm (Rozell et al. 2008), from the encoder's own choice.

It is trained as BatchTopK is. Near the end of a run the threshold of the second choice is measured.

Names: B rows, D dimensions, M enabled features.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cpsae.sae.affine import affine
from cpsae.sae.batch_topk import BatchTopKKind, BatchTopKSettings, follow, jumping_at
from cpsae.sae.dead_latents import RevivingKind
from cpsae.sae.form import Form
from cpsae.sae.kind import Latents, RunPlan, Spec, Weights

_MEASURED_FROM = 0.9
"""Part of the run after which batches are chosen from a second time, for the threshold alone."""


class LCASettings(BatchTopKSettings):
    """How strongly latents inhibit each other."""

    inhibition: float = Field(0.3, gt=0, le=1)
    """eta: how much of what the first choice leaves is added along each decoder vector."""


class LCABatchTopK(BatchTopKKind):
    """a = ReLU(z + eta W_dec^T (x - x_hat_0)) where that is above `threshold`, else 0; z are the
    pre-activations, and x_hat_0 is what ReLU(z) above `first_threshold` reconstructs.

    In training a = what BatchTopK has. Inference before the second threshold is measured, from a
    checkpoint, is BatchTopK's.
    """

    name = "lca-batchtopk"
    works_split = True
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
        self.measured_from = round(_MEASURED_FROM * plan.steps)

    def measures(self, updates: int) -> bool:
        """Whether the update after so many measures the second threshold."""
        return updates >= self.measured_from

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        z = affine(x, w["w_enc"], w["b_enc"])
        f = z.relu()
        first = f.masked_fill(f <= self.tensors["first_threshold"].to(f.dtype), 0)
        threshold = self.tensors["threshold"].to(f.dtype)
        rest = self._inhibited(w, x, z, first)
        second = rest.masked_fill(rest <= threshold, 0)
        return Latents(raw=f, competed=torch.where(threshold > 0, second, first))

    def form(self, w: Weights) -> Form:
        """LCA; JumpReLU while the second threshold is not measured."""
        if self.tensors["threshold"] <= 0:
            return jumping_at(self.tensors["first_threshold"], w)
        levels = {name: self.tensors[name] for name in ("first_threshold", "threshold")}
        return Form("lca", levels, {"inhibition": self.settings.inhibition})

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """x: (B, D). `kept` holds the smallest that each choice keeps, or what the first keeps."""
        first = super().encode_batch(w, x_BD)
        if first.kept is None or not self.measures(self.updates):
            return first
        assert first.pre is not None, "BatchTopK gives pre-activations"
        with torch.no_grad():
            rest = self._inhibited(w, x_BD, first.pre, first.competed)
            second = rest.flatten()[self.largest(rest)]
            smallest = [self.group.smallest(kept) for kept in (first.kept, second)]
        return first._replace(kept=torch.stack(smallest))

    @torch.no_grad()
    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:
        """Take the smallest kept latents into the thresholds."""
        RevivingKind.after_step(self, step, rho, latents)
        if latents.kept is None:
            return
        if self.measures(step - 1):
            first, second = latents.kept
            # where a batch keeps all that is above 0; a threshold of 0 is one that is not measured
            follow(self.tensors["threshold"], second.clamp_min(torch.finfo(second.dtype).tiny))
        else:
            first = self.group.smallest(latents.kept)
        follow(self.tensors["first_threshold"], first)

    def products_now(self) -> int:
        """The second choice decodes, and projects on the dictionary."""
        return self.products + (2 if self.measures(self.updates) else 0)

    def schedule_lengths(self) -> dict[str, float]:
        """From when on the second threshold is measured, and what BatchTopK has."""
        return {**super().schedule_lengths(), "steps": self.plan.steps}

    def _inhibited(self, w: Weights, x: Tensor, z: Tensor, first: Tensor) -> Tensor:
        """ReLU(z + eta W_dec^T (x - x_hat)) (..., M), x_hat being what `first` reconstructs."""
        rest = x - self.decode(w, first)
        return (z + self.settings.inhibition * F.linear(rest, w["w_dec"])).relu()
