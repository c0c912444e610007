"""A kind of somebody else's package: JumpReLU (Rajamanoharan et al. 2024) with its learned
threshold a feature, a setting and a loss of its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cpsae.sae.form import Form
from cpsae.sae.kind import STANDARD, Kind, KindSettings, Latents, Spec, Weights
from cpsae.sae.losses import Loss


class JumpingSettings(KindSettings):
    """Weight of the L0 term, and how wide the kernel is that lends it a gradient."""

    sparsity: float = Field(0.01, ge=0)
    bandwidth: float = Field(0.1, gt=0)


class Jumping(Kind):
    """a = f where f is above the feature's own threshold, else 0."""

    name = "jump-ing"
    Settings = JumpingSettings
    settings: JumpingSettings
    weights: ClassVar[Mapping[str, Spec]] = {**STANDARD, "log_threshold": Spec("n", start=-3.0)}
    state: ClassVar[Mapping[str, Spec]] = {"fired": Spec("n", dtype=torch.int64)}

    def encode(self, w: Weights, x: Tensor) -> Latents:
        pre = F.linear(x, w["w_enc"], w["b_enc"])
        gate = _Step.apply(pre, w["log_threshold"].exp(), self.settings.bandwidth)
        f = pre.relu()
        return Latents(raw=f, competed=f * gate, pre=pre)

    def form(self, w: Weights) -> Form:
        return Form("jumprelu", {"threshold": w["log_threshold"].exp()})

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:
        mse = self.mse(x_BD, x_hat_BD)
        gate = _Step.apply(latents.pre, w["log_threshold"].exp(), self.settings.bandwidth)
        l0 = gate.sum() / len(x_BD)
        return Loss(mse + self.settings.sparsity * l0, {"mse": mse, "soft_l0": l0})

    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:  # noqa: ARG002
        fired = (latents.competed > 0).sum(0)
        self.tensors["fired"][: len(fired)] += fired

    def figures(self) -> dict[str, float]:
        return {"ever_fired": float((self.tensors["fired"] > 0).sum())}


class _Step(torch.autograd.Function):
    """1 where z is above the threshold; its gradient goes to the threshold alone, spread over
    `bandwidth`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = ((z - threshold).abs() < ctx.bandwidth / 2).to(z.dtype)
        slope = -(gradients[0] * near / ctx.bandwidth)
        return None, slope.reshape(-1, slope.shape[-1]).sum(0), None
