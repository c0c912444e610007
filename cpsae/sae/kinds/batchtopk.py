"""BatchTopK: a batch keeps its k * B largest latents (Bussmann et al. 2024, arXiv 2412.06410).

At inference a row must not depend on its neighbours, so latents above a fixed threshold are kept:
the running mean of the smallest latent that training batches kept.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor

from cpsae.config import FitSettings
from cpsae.sae.kind import Kind, Latents, fitting_k

# About the last 100 batches: long enough to be steady, short enough to follow a run of 1,000 steps.
_MOMENTUM = 0.99


class BatchTopK(Kind):
    """a = f where f is among the batch's k * B largest (training) or f > threshold (inference)."""

    def __init__(self, k: int, threshold: float = 0.0) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k = {k} is not above 0")
        if not (math.isfinite(threshold) and threshold >= 0):
            raise ValueError(f"threshold {threshold} is not a number from 0 upwards")
        self.k = k
        self.batches = 0
        self.threshold = torch.tensor(threshold, dtype=torch.float64)
        self._smallest_kept: Tensor | None = None

    @classmethod
    def from_settings(cls, settings: FitSettings, *, n: int, anneal_steps: int) -> Self:  # noqa: ARG003
        """Takes `k`, which must not be above n."""
        return cls(fitting_k(settings, n))

    @classmethod
    def from_constants(cls, constants: dict[str, Any]) -> Self:
        """Takes `k` and `threshold`."""
        return cls(int(constants["k"]), float(constants["threshold"]))

    def forward(self, pre: Tensor) -> Latents:
        """pre: (..., M); in training mode all leading dimensions together are the batch."""
        f = pre.relu()
        if not self.training:
            return Latents(raw=f, competed=f.masked_fill(f <= self.threshold.to(f.dtype), 0))
        flat = f.flatten()
        count = flat.numel() // f.shape[-1] * min(self.k, f.shape[-1])
        values, indices = torch.topk(flat, count, sorted=False)
        self._smallest_kept = values.detach().min()
        kept = torch.zeros_like(flat).scatter(0, indices, values)
        return Latents(raw=f, competed=kept.view_as(f))

    def constants(self) -> dict[str, Any]:
        """k, and the threshold as it stands."""
        return {"k": self.k, "threshold": float(self.threshold)}

    @torch.no_grad()
    def after_step(self, step: int, rho: float | Tensor) -> None:  # noqa: ARG002
        """Take the last training batch's smallest kept latent into the threshold."""
        if self._smallest_kept is None:
            return
        self.move_running_state(self._smallest_kept.device)
        momentum = _MOMENTUM if self.batches else 0.0
        self.threshold.mul_(momentum).add_(self._smallest_kept, alpha=1 - momentum)
        self.batches += 1
        self._smallest_kept = None

    def running_state(self) -> dict[str, Any]:
        """The threshold and how many batches went into it."""
        return {"threshold": float(self.threshold), "batches": self.batches}

    def load_running_state(self, state: dict[str, Any]) -> None:
        """Restore `running_state()`."""
        self.threshold.fill_(float(state["threshold"]))
        self.batches = int(state["batches"])

    def move_running_state(self, device: torch.device) -> None:
        """Keep the threshold on `device`."""
        self.threshold = self.threshold.to(device)
