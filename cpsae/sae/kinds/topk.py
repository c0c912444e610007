"""TopK: each row keeps its k largest latents (Gao et al. 2024, arXiv 2406.04093)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsae.sae.batch_topk import TopKSettings, fitting_k
from cpsae.sae.dead_latents import RevivingKind
from cpsae.sae.kind import Latents, RunPlan, Weights


class TopK(RevivingKind):
    """a = f where f is among its row's k largest, else 0. With fewer than k enabled, all stay."""

    name = "topk"
    Settings = TopKSettings
    settings: TopKSettings
    inference_settings: ClassVar[tuple[str, ...]] = ("k",)

    def __init__(self, settings: TopKSettings, plan: RunPlan) -> None:
        """Raises SettingsError where k is above n."""
        super().__init__(settings, plan)
        self.k = fitting_k(settings, plan.n)

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        pre = F.linear(x, w["w_enc"], w["b_enc"])
        f = pre.relu()
        values, indices = torch.topk(f, min(self.k, f.shape[-1]), dim=-1, sorted=False)
        kept = torch.zeros_like(f).scatter(-1, indices, values)
        return Latents(raw=f, competed=kept, pre=pre)
