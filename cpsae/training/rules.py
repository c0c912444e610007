"""Step rules: from the enabled weights and a batch to the gradients of the loss.

`autograd` serves every kind and is the reference for any other rule, which must agree with it in
values and gradients.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpsae.sae.kind import Kind, Latents
from cpsae.sae.losses import Loss


class Step(NamedTuple):
    """What a rule gives; nothing of it has a history."""

    gradients: dict[str, Tensor]
    """By the weights' names, in their shapes."""
    latents: Latents
    """(B, M) of the batch."""
    loss: Loss


@dataclass(frozen=True)
class Objective:
    """The loss of a batch as a function of the weights."""

    kind: Kind
    center: bool = False
    """Whether the encoder sees x - b_dec."""
    bfloat16: bool = False
    """Whether matrix products are made in bfloat16; sums are float32."""

    def __call__(self, w: Mapping[str, Tensor], x_BD: Tensor) -> tuple[Latents, Loss]:
        """w: weights of the enabled features; x: (B, D) normalised. Five products in all, backward
        included: x needs no gradient, and centring is folded into the bias."""
        latents = self.encode(w, x_BD)
        with self._products(x_BD.device.type):
            x_hat = self.kind.decode(w, latents.competed)
        return latents, self.loss(w, x_BD, latents, x_hat)

    def encode(self, w: Mapping[str, Tensor], x_BD: Tensor) -> Latents:
        """The batch's latents."""
        seen = self.kind.centred(w) if self.center else w  # in float32, as when it is saved
        with self._products(x_BD.device.type):
            return self.kind.encode_batch(seen, x_BD)

    def loss(
        self, w: Mapping[str, Tensor], x_BD: Tensor, latents: Latents, x_hat_BD: Tensor
    ) -> Loss:
        """The kind's, of latents and what is decoded from them."""
        with self._products(x_BD.device.type):
            return self.kind.loss(w, x_BD, latents, x_hat_BD)

    def uncentred(
        self, w: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """From gradients with respect to what the encoder sees and the decoder's weights to those
        with respect to the weights themselves."""
        if not self.center:
            return dict(gradients)
        leaves = {name: weight.detach().requires_grad_() for name, weight in w.items()}
        with torch.enable_grad():
            bias = self.kind.centred(leaves)["b_enc"]
        found = torch.autograd.grad(
            bias, [leaves[name] for name in gradients], gradients["b_enc"], allow_unused=True
        )
        made = {
            name: (torch.zeros_like(g) if name == "b_enc" else g) for name, g in gradients.items()
        }
        for name, through in zip(gradients, found, strict=True):
            made[name] = made[name] if through is None else made[name] + through
        return made

    def reconstruct(self, w: Mapping[str, Tensor], x_BD: Tensor) -> Tensor:
        """x_hat (B, D) float32 of a batch, as the loss sees it; without a history in `no_grad`."""
        latents = self.encode(w, x_BD)
        with self._products(x_BD.device.type):
            return self.kind.decode(w, latents.competed).float()

    def _products(self, device_type: str) -> AbstractContextManager[Any]:
        return torch.autocast(device_type, torch.bfloat16) if self.bfloat16 else nullcontext()


StepRule = Callable[[Objective, Mapping[str, Tensor], Tensor], Step]


def autograd(objective: Objective, w: Mapping[str, Tensor], x_BD: Tensor) -> Step:
    """torch's own differentiation, with respect to those of w that ask for gradients: leaves."""
    latents, loss = objective(w, x_BD)
    names = [name for name, weight in w.items() if weight.requires_grad]
    found = torch.autograd.grad(loss.total, [w[name] for name in names], allow_unused=True)
    gradients = {
        # a gradient may be one number, expanded: no memory of its own to work in
        name: torch.zeros_like(w[name]) if gradient is None else gradient.contiguous()
        for name, gradient in zip(names, found, strict=True)
    }
    parts = {name: part.detach() for name, part in loss.parts.items()}
    return Step(gradients, latents.detached(), Loss(loss.total.detach(), parts))
