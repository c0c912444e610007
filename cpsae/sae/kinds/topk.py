"""TopK: each row keeps its k largest latents (Gao et al. 2024, arXiv 2406.04093)."""

from typing import ClassVar

import torch
from torch import Tensor

from cpsae.sae.affine import affine
from cpsae.sae.batch_topk import TopKSettings, fitting_k
from cpsae.sae.dead_latents import RevivingKind
from cpsae.sae.form import Form
from cpsae.sae.kind import Latents, RunPlan, Weights


class TopK(RevivingKind):
    """a = f where f is among its row's k largest, else 0. With fewer than k enabled, all stay."""

    name = "topk"
    works_split = True
    Settings = TopKSettings
    settings: TopKSettings
    inference_settings: ClassVar[tuple[str, ...]] = ("k",)

    def __init__(self, settings: TopKSettings, plan: RunPlan) -> None:
        """Raises SettingsError where k is above n."""
        super().__init__(settings, plan)
        self.k = fitting_k(settings, plan.n)

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        return self._encode(w, x)[0]

    def form(self, w: Weights) -> Form:
        """The k largest; all, where fewer are enabled."""
        return Form("topk", fixed={"k": min(self.k, len(w["w_enc"]))})

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """x: (B, D)."""
        latents, features_BK = self._encode(w, x_BD)
        rows = torch.arange(len(x_BD), device=x_BD.device)[:, None]
        entries = (rows * latents.raw.shape[1] + features_BK).flatten()
        if self.group.splits:  # most of a row's largest are another process's
            entries = entries[latents.competed.flatten()[entries] > 0]
        return latents._replace(entries=entries)

    def share_kept(self) -> float:
        """k of n."""
        return self.k / self.plan.n

    def _encode(self, w: Weights, x: Tensor) -> tuple[Latents, Tensor]:
        """With the features (..., k) of which the others are not kept."""
        pre = affine(x, w["w_enc"], w["b_enc"])
        f = pre.relu()
        values, features = self.group.largest_in_rows(f, self.k)
        kept = torch.zeros_like(f).scatter_(-1, features, values)
        return Latents(raw=f, competed=kept, pre=pre), features
