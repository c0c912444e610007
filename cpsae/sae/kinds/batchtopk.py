"""BatchTopK: a batch keeps its k * B largest latents (Bussmann et al. 2024, arXiv 2412.06410).

At inference a row must not depend on its neighbours, so latents above a fixed threshold are kept:
the running mean of the smallest latent that training batches kept.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsae.sae.dead_latents import RevivingKind
from cpsae.sae.kind import Latents, RunPlan, Spec, Weights
from cpsae.sae.kinds.topk import TopKSettings, fitting_k

# About the last 100 batches: long enough to be steady, short enough to follow a run of 1,000 steps.
_MOMENTUM = 0.99


class BatchTopK(RevivingKind):
    """a = f where f is among the batch's k * B largest (training) or f > threshold (inference)."""

    name = "batchtopk"
    Settings = TopKSettings
    settings: TopKSettings
    inference_settings: ClassVar[tuple[str, ...]] = ("k",)
    state: ClassVar[Mapping[str, Spec]] = {
        **RevivingKind.state,
        "threshold": Spec("", dtype=torch.float64, saved="threshold"),
    }

    def __init__(self, settings: TopKSettings, plan: RunPlan) -> None:
        """Raises SettingsError where k is above n."""
        super().__init__(settings, plan)
        self.k = fitting_k(settings, plan.n)

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        f = F.linear(x, w["w_enc"], w["b_enc"]).relu()
        kept = f.masked_fill(f <= self.tensors["threshold"].to(f.dtype), 0)
        return Latents(raw=f, competed=kept)

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """x: (B, D)."""
        pre = F.linear(x_BD, w["w_enc"], w["b_enc"])
        f = pre.relu()
        flat = f.flatten()
        count = f.shape[0] * min(self.k, f.shape[1])
        values, indices = torch.topk(flat, count, sorted=False)
        kept = torch.zeros_like(flat).scatter(0, indices, values)
        return Latents(raw=f, competed=kept.view_as(f), pre=pre, kept=values)

    @torch.no_grad()
    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:
        """Take the batch's smallest kept latent into the threshold."""
        super().after_step(step, rho, latents)
        assert latents.kept is not None, "encode_batch gives the values that it keeps"
        smallest = latents.kept.min()
        momentum = _MOMENTUM if step > 1 else 0.0
        self.tensors["threshold"].mul_(momentum).add_(smallest, alpha=1 - momentum)

    @classmethod
    def from_constants(cls, constants: Mapping[str, Any], d: int, n: int) -> Self:
        """Takes `k` and `threshold`."""
        kind = super().from_constants(constants, d, n)
        if kind.tensors["threshold"] < 0:
            raise ValueError(f"threshold is {constants['threshold']}, not 0 or more")
        return kind
