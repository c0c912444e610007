"""One update of the autoencoder, in the order that METHOD section 3 gives.

Names: B rows, D dimensions, M enabled features (n_(t-1) in the paper).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsae.config import FitSettings
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.initialization import Parameters, unit_rows
from cpsae.sae.kind import Kind, Latents
from cpsae.sae.losses import Objective, objective
from cpsae.sae.normalization import Normalizer
from cpsae.sae.progressive import Enabling, Importance
from cpsae.training.optimizer import PrefixAdam

_EARLY_STEPS = 100


@dataclass(frozen=True)
class StepResult:
    """Figures of one update, in normalised space."""

    loss: float
    mse: float
    l1: float
    l0: float
    utilisation: float
    """rho after the update."""
    n_enabled: int
    """Features that took part."""
    growth: int
    """Features enabled after the update."""
    temperature: float | None
    """T that was used, for kinds that have one."""


class TrainState:
    """Everything that an update reads and changes."""

    def __init__(
        self,
        weights: Parameters,
        kind: Kind,
        normalizer: Normalizer,
        settings: FitSettings,
        bfloat16: bool,
    ) -> None:
        n = len(weights.b_enc)
        device = weights.b_enc.device
        self.settings = settings
        self.normalizer = normalizer
        self.kind = kind.to(device).train()
        self.enabling = Enabling.from_settings(settings, n)
        self.importance = Importance.from_settings(settings, n, device)
        self.optimizer = PrefixAdam(weights, settings, self.enabling.n_enabled)
        self.device = device
        self.bfloat16 = bfloat16
        self.step = 0
        self.early_loss = torch.zeros((), dtype=torch.float64, device=device)
        """Sum of the losses of the first 100 updates (reading 17)."""

    def update(self, rows_BD: Tensor, lr: float, measure: bool = True) -> StepResult | None:
        """One update from raw rows (B, D) of any float dtype, at this learning rate.

        Its figures are given only where asked for: to read them is to wait for the GPU.
        """
        self.step += 1
        x_BD = self.normalizer.normalize(rows_BD.to(self.device, non_blocking=True))
        n_enabled = self.optimizer.n_enabled
        temperature = self.kind.temperature if measure else None
        latents, parts = self.forward(x_BD)
        parts.loss.backward()  # type: ignore[no-untyped-call]
        if self.step <= _EARLY_STEPS:
            self.early_loss += parts.loss.detach()
        self._descend(lr)
        rho = self.importance.observe(latents.raw.detach())
        self.kind.after_step(self.step, rho)
        added = self.enabling.advance(self.step, rho)
        if added:
            self.optimizer.enable(self.enabling.n_enabled)
        if not measure:
            return None
        return StepResult(
            loss=parts.loss.item(),
            mse=parts.mse.item(),
            l1=parts.l1.item(),
            l0=float((latents.competed != 0).sum()) / len(x_BD),
            utilisation=float(rho),
            n_enabled=n_enabled,
            growth=added,
            temperature=temperature,
        )

    def forward(self, x_BD: Tensor) -> tuple[Latents, Objective]:
        """Latents (B, M) and the objective (Eq. 1, 2) of normalised rows; five products in all,
        backward included: x needs no gradient, and centring is folded into the bias."""
        weight = self.optimizer.active
        bias: Tensor = weight["b_enc"]
        if self.settings.center:  # in float32, as it is folded when saved
            bias = bias - weight["w_enc"] @ weight["b_dec"]
        with self._products():
            pre = F.linear(x_BD, weight["w_enc"], bias)
            latents = self.kind(pre)
            x_hat = torch.addmm(weight["b_dec"], latents.competed, weight["w_dec"])
        penalised = latents.competed if self.settings.l1_on == "competed" else latents.raw
        parts = objective(x_BD, x_hat, penalised, self.settings.l1, self.settings.mse_reduction)
        return latents, parts

    @torch.no_grad()
    def _descend(self, lr: float) -> None:
        """Adam along the gradient, decoder rows kept on the unit sphere."""
        w_dec = self.optimizer.active["w_dec"]
        gradient = w_dec.grad
        assert gradient is not None, "backward leaves a gradient on every active weight"
        # The part along a row would only change its norm, which is put back anyway.
        along = (gradient * w_dec).sum(dim=1, keepdim=True)
        gradient.addcmul_(along, w_dec, value=-1)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.optimizer.active.values(), self.settings.clip)
        self.optimizer.step(lr)
        w_dec.copy_(unit_rows(w_dec))

    def _products(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def initial_loss(self) -> float:
        """Mean loss of the first 100 updates, or of all so far (Table 1's "Initial Loss")."""
        return float(self.early_loss) / max(1, min(self.step, _EARLY_STEPS))

    def finite(self) -> bool:
        """Whether every weight is a number; a finite loss says nothing of the update after it."""
        return all(bool(weight.isfinite().all()) for weight in self.optimizer.weights.values())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exact resume needs: tensors by name, and what JSON can hold."""
        tensors = {**self.optimizer.tensors(), **self.importance.state()}
        tensors["early_loss"] = self.early_loss
        return tensors, {**self.enabling.state(), "kind": self.kind.running_state()}

    def restore(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take back what `state` gave after update `step`."""
        self.step = step
        self.enabling.load_state(state)
        self.importance.load_state(tensors)
        self.early_loss.copy_(tensors["early_loss"])
        self.kind.load_running_state(state["kind"])
        self.optimizer.restore(tensors, self.enabling.n_enabled)

    def autoencoder(self, hook: dict[str, Any]) -> SparseAutoencoder:
        """A copy for inference, centring folded into b_enc."""
        weights = self.optimizer.weights
        b_enc = weights["b_enc"]
        if self.settings.center:
            b_enc = b_enc - weights["w_enc"] @ weights["b_dec"]
        return SparseAutoencoder.from_training(
            Parameters(weights["w_enc"], b_enc, weights["w_dec"], weights["b_dec"]),
            kind=self.settings.kind,
            constants=self.kind.constants(),
            n_enabled=self.enabling.n_enabled,
            normalizer=self.normalizer,
            hook=hook,
        )
