"""JumpReLU: a latent is kept where it is above its feature's own, learned threshold (Rajamanoharan
et al. 2024, arXiv 2407.14435), with a target for L0 in place of a weight (Gemma Scope 2).

Names: B rows, D dimensions, M enabled features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from cpsae.config import Count
from cpsae.sae.affine import affine
from cpsae.sae.dead_latents import ReviveSettings, RevivingKind
from cpsae.sae.form import Form
from cpsae.sae.kind import STANDARD, Latents, RunPlan, Spec, Weights
from cpsae.sae.losses import Loss
from cpsae.sae.precision import widen


class JumpReLUSettings(ReviveSettings):
    """What L0 is drawn to, and how thresholds get a gradient."""

    target_l0: float = Field(32, gt=0)
    """L0 that the penalty draws the batch to."""
    l0_coefficient: float = Field(1.0, ge=0)
    """Weight of the penalty (L0 / target_l0 - 1)^2."""
    l0_warmup_steps: Count = Field(1000, ge=0)
    """Steps in which that weight rises linearly from 0; shortened as the warm-up of lr is."""
    bandwidth: float = Field(0.01, gt=0)
    """Width of the kernel that lends the step at the threshold a gradient, in normalised units; the
    paper's is 0.001."""
    input_gradient: bool = False
    """Whether pre-activations get that gradient too, beside thresholds."""


class JumpReLU(RevivingKind):
    """a = f where f is above the feature's threshold, else 0. The loss is squared error +
    l0_coefficient * (L0 / target_l0 - 1)^2 + the loss on dead latents.

    A threshold below 0 is as one of 0.
    """

    name = "jumprelu"
    works_split = True
    Settings = JumpReLUSettings
    settings: JumpReLUSettings
    weights: ClassVar[Mapping[str, Spec]] = {**STANDARD, "threshold": Spec("n", start=0.001)}

    def __init__(self, settings: JumpReLUSettings, plan: RunPlan) -> None:
        super().__init__(settings, plan)
        self.warmup_steps = round(settings.l0_warmup_steps * plan.schedule_scale)

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        f = affine(x, w["w_enc"], w["b_enc"]).relu()
        return Latents(raw=f, competed=f.masked_fill(f <= w["threshold"].to(f.dtype), 0))

    def form(self, w: Weights) -> Form:
        """JumpReLU."""
        return Form("jumprelu", {"threshold": w["threshold"].clamp_min(0)})

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """The same, with a gradient for thresholds."""
        pre = affine(x_BD, w["w_enc"], w["b_enc"])
        wide = widen(pre)  # half precision has few values within the bandwidth
        bandwidth, through = self.settings.bandwidth, self.settings.input_gradient
        competed, gate = _Jump.apply(wide, w["threshold"], bandwidth, through)  # type: ignore[no-untyped-call]
        return Latents(raw=wide.relu(), competed=competed, pre=pre, gate=gate)

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:
        """Parts: mse, aux and penalty, (L0 / target_l0 - 1)^2."""
        total, parts = super().loss(w, x_BD, latents, x_hat_BD)
        assert latents.gate is not None, "encode_batch gives the gate"
        own = self.group.sum_of_features(latents.gate.sum() / len(x_BD))
        l0 = self.group.batch_mean(own)
        penalty = (l0 / self.settings.target_l0 - 1).square()
        risen = min(1.0, self.updates / self.warmup_steps) if self.warmup_steps else 1.0
        weight = risen * self.settings.l0_coefficient
        return Loss(total + weight * penalty, {**parts, "penalty": penalty})

    def share_kept(self) -> float:
        """Of n, once L0 has come to its target."""
        return self.settings.target_l0 / self.plan.n

    def entries(self, w: Weights, latents: Latents) -> Tensor:
        """What is kept, and what is as near to its threshold as the kernel reaches."""
        reach = w["threshold"].detach().clamp_min(0) - self.settings.bandwidth / 2
        assert latents.pre is not None, "encode_batch gives pre-activations"
        return (latents.pre > reach).flatten().nonzero().squeeze(1)

    def pull_entries(
        self,
        w: Weights,
        latents: Latents,
        entries_E: Tensor,
        g_a_E: Tensor,
        g_gate_E: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `_Jump.backward`."""
        assert latents.pre is not None, "encode_batch gives pre-activations"
        theta_M = w["threshold"].detach()
        features_E = entries_E % len(theta_M)
        z_E = widen(latents.pre.flatten()[entries_E])
        level_E = theta_M.clamp_min(0)[features_E]
        g_z_E, jump_E = _pull(z_E, level_E, self.settings.bandwidth, g_a_E, g_gate_E)
        g_theta_M = torch.zeros_like(theta_M).index_add_(0, features_E, jump_E, alpha=-1)
        return g_z_E + jump_E if self.settings.input_gradient else g_z_E, {"threshold": g_theta_M}

    def schedule_lengths(self) -> dict[str, float]:
        """The rise of the penalty's weight, and when a latent is dead."""
        return {**super().schedule_lengths(), "l0_warmup_steps": self.warmup_steps}

    def begin(self, w: Weights, features: Tensor, directions_KD: Tensor, level_K: Tensor) -> None:
        """Firing at their level, whatever thresholds begin with."""
        super().begin(w, features, directions_KD, level_K)
        w["b_enc"][features] += w["threshold"][features]


class _Jump(torch.autograd.Function):
    """z and theta -> z where z > max(theta, 0), else 0; and 1 there, else 0.

    The jump at theta has the gradient of a ramp of the kernel's width (the pseudo-derivatives of
    the paper's section 3 for theta; the same, with the other sign, for z).
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, theta: Tensor, bandwidth: float, through: bool
    ) -> tuple[Tensor, Tensor]:
        """z: (B, M); theta: (M,)."""
        level = theta.clamp_min(0)
        gate = (z > level).to(z.dtype)
        ctx.save_for_backward(z, level)
        ctx.bandwidth, ctx.through = bandwidth, through
        return z.relu() * gate, gate

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of the first two arguments."""
        z, level = ctx.saved_tensors
        of_z, jump = _pull(z, level, ctx.bandwidth, *gradients)
        return of_z + jump if ctx.through else of_z, -jump.sum(0), None, None


def _pull(
    z: Tensor, level: Tensor, bandwidth: float, g_a: Tensor, g_gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to z where it is kept, and to the place of the jump at its level."""
    near = ((z - level).abs() < bandwidth / 2).to(z.dtype) / bandwidth
    of_jump = level * g_a if g_gate is None else level * g_a + g_gate
    return g_a * (z > level), near * of_jump
