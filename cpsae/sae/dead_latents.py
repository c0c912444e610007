"""The auxiliary loss that revives dead latents (Gao et al. 2024, section A.2), for kinds that keep
latents by a rule: what is never among the kept ones gets no gradient otherwise.

Names: B rows, D dimensions, M enabled features.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cpsae.config import Count
from cpsae.sae.kind import Kind, KindSettings, Latents, RunPlan, Spec, Weights
from cpsae.sae.losses import Loss

_MOST_DEAD_AFTER = 10_000_000
"""Rows, as in the paper; a tenth of the run where that is less, or few runs would reach it."""


class ReviveSettings(KindSettings):
    """The auxiliary loss on dead latents."""

    aux_k: Count | None = Field(None, ge=0)
    """Dead latents a row that the loss may use; by default d // 2; 0 turns it off."""
    aux_coefficient: float = Field(1 / 32, ge=0)
    """Its weight in the loss."""
    dead_after: Count | None = Field(None, ge=1)
    """Training rows without firing after which a latent is dead; by default 10M or a tenth of
    the run's rows, whichever is less."""


class RevivingKind(Kind):
    """A kind whose loss is squared error + aux_coefficient * aux, where aux is the squared error of
    the residual's reconstruction from the `aux_k` largest dead latents of each row.

    Those are latents of enabled features that have not fired for `dead_after` rows, taken before
    the ReLU; the residual is a target, so no gradient flows into it. While none is dead, aux is 0
    and costs nothing. Its `Settings` is a ReviveSettings, its `encode_batch` gives `pre`.
    """

    Settings = ReviveSettings
    settings: ReviveSettings
    works_in_groups: ClassVar[bool] = True
    state: ClassVar[Mapping[str, Spec]] = {"rows_since_fired": Spec("n", dtype=torch.int64)}

    def __init__(self, settings: ReviveSettings, plan: RunPlan) -> None:
        super().__init__(settings, plan)
        self.aux_k = plan.d // 2 if settings.aux_k is None else settings.aux_k
        default = min(_MOST_DEAD_AFTER, max(1, plan.rows // 10))
        self.dead_after = settings.dead_after or default

    def schedule_lengths(self) -> dict[str, float]:
        """When a latent is dead, where the loss looks at dead ones."""
        looks = self.aux_k and self.settings.aux_coefficient
        return {"dead_after": self.dead_after} if looks else {}

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:
        """Parts: mse and aux."""
        mse = self.mse(x_BD, x_hat_BD)
        aux = self.auxiliary(w, x_BD, latents, x_hat_BD)
        return Loss(mse + self.settings.aux_coefficient * aux, {"mse": mse, "aux": aux})

    @torch.no_grad()
    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:  # noqa: ARG002
        """Count the batch's rows for every enabled feature that did not fire in it."""
        since_M = self.tensors["rows_since_fired"][: latents.competed.shape[1]]
        batch = self.group.rows(latents.competed.shape[0])
        since_M.add_(batch).masked_fill_(self.group.maximum(latents.fired()), 0)

    def auxiliary(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Tensor:
        """The loss on dead latents, 0 where none is dead."""
        nothing = x_hat_BD.new_zeros((), dtype=torch.float32)
        seen = self.updates * self.group.rows(len(x_BD))
        may_be_dead = seen >= self.dead_after  # to look is to wait for the GPU
        if not (may_be_dead and self.aux_k and self.settings.aux_coefficient):
            return nothing
        assert latents.pre is not None, "encode_batch gives pre-activations"
        since_M = self.tensors["rows_since_fired"][: latents.pre.shape[1]]
        dead = (since_M >= self.dead_after).nonzero().squeeze(1)
        count = self.group.whole(len(dead))
        if count == 0:
            return nothing
        pre = latents.pre[:, dead]
        if self.aux_k < count:
            values, indices = self.group.largest_in_rows(pre, self.aux_k)
            pre = torch.zeros_like(pre).scatter(1, indices, values)
        found = self.group.sum_of_features(pre @ w["w_dec"][dead])
        return self.mse((x_BD - x_hat_BD).detach(), found)
