"""P-anneal: ReLU with a penalty whose exponent falls, so that it ends close to counting latents
(Karvonen et al. 2024, arXiv 2408.00113).

Names: B rows, D dimensions, M enabled features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cpsae.sae.affine import affine
from cpsae.sae.form import Form
from cpsae.sae.kind import COMMON_PRESET, Kind, KindSettings, Latents, RunPlan, Spec, Weights
from cpsae.sae.losses import Loss
from cpsae.sae.precision import widen

_SMALLEST = 1e-3
"""Added to latents under the exponent: its slope would be infinite at 0."""


class PAnnealSettings(KindSettings):
    """The penalty: l1 * sum f at first, weight * sum f^p later."""

    preset: ClassVar[dict[str, Any]] = {**COMMON_PRESET, "clip": 1.0}
    l1: float = Field(0.04, ge=0)
    """Weight of the penalty while p is 1; later it is set so that the penalty of a batch does not
    change with p."""
    p_end: float = Field(0.2, gt=0, le=1)
    """The exponent at the last step."""
    anneal_from: float = Field(0.2, ge=0, le=1)
    """Part of the run after which p falls, linearly, from 1."""


class PAnneal(Kind):
    """a = f = ReLU(W_enc x + b_enc); squared error + weight * sum (f + e)^p - e^p."""

    name = "p-anneal"
    Settings = PAnnealSettings
    works_in_groups = True
    works_split = True
    settings: PAnnealSettings
    state: ClassVar[Mapping[str, Spec]] = {
        "weight": Spec("", dtype=torch.float64),
    }

    def __init__(self, settings: PAnnealSettings, plan: RunPlan) -> None:
        """At p = 1."""
        super().__init__(settings, plan)
        self.tensors["weight"].fill_(settings.l1)

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        f = affine(x, w["w_enc"], w["b_enc"]).relu()
        return Latents(raw=f, competed=f)

    def form(self, w: Weights) -> Form:  # noqa: ARG002
        """ReLU."""
        return Form("relu")

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:  # noqa: ARG002
        """Parts: mse and penalty."""
        mse = self.mse(x_BD, x_hat_BD)
        penalty = self._penalty(latents.raw, self.p(self.updates))
        weight = self.tensors["weight"].to(penalty.dtype)
        return Loss(mse + weight * penalty, {"mse": mse, "penalty": penalty})

    @torch.no_grad()
    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:  # noqa: ARG002
        """Lower p, and set the weight so that the batch's weighted penalty stays what it was."""
        before = self.group.batch_mean(self._penalty(latents.raw, self.p(step - 1)))
        after = self.group.batch_mean(self._penalty(latents.raw, self.p(step)))
        ratio = torch.where(after > 0, before / after, 1.0)
        self.tensors["weight"].mul_(ratio.double())

    def _penalty(self, f_BM: Tensor, p: float) -> Tensor:
        """sum (f + e)^p - e^p over M, averaged over B: f itself where p = 1, and 0 where f = 0."""
        wide = widen(f_BM)
        raised = (wide + _SMALLEST).pow(p) - _SMALLEST**p
        return self.group.sum_of_features((raised * (wide > 0)).sum() / len(f_BM))

    def p(self, updates: int) -> float:
        """The exponent of the update after so many."""
        begin, end = self.settings.anneal_from, self.settings.p_end
        done = min(1.0, updates / max(self.plan.steps - 1, 1))
        return 1 - (1 - end) * max(0.0, done - begin) / max(1 - begin, 1e-9)

    def schedule_lengths(self) -> dict[str, float]:
        """When p has fallen."""
        idle = self.settings.p_end == 1 or self.settings.anneal_from == 1
        return {} if idle else {"p_end": self.plan.steps}

    def figures(self) -> dict[str, float]:
        """p, and the penalty's weight. Waits for the GPU."""
        return {"p": self.p(self.updates), "penalty_weight": float(self.tensors["weight"])}
