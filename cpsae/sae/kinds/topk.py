"""TopK: each row keeps its k largest latents (Gao et al. 2024, arXiv 2406.04093)."""

from typing import Any, Self

import torch
from torch import Tensor

from cpsae.config import FitSettings
from cpsae.sae.kind import Kind, Latents, fitting_k


class TopK(Kind):
    """a = f where f is among its row's k largest, else 0. With fewer than k enabled, all stay."""

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k = {k} is not above 0")
        self.k = k

    @classmethod
    def from_settings(cls, settings: FitSettings, *, n: int, anneal_steps: int) -> Self:  # noqa: ARG003
        """Takes `k`, which must not be above n."""
        return cls(fitting_k(settings, n))

    @classmethod
    def from_constants(cls, constants: dict[str, Any]) -> Self:
        """Takes `k`."""
        return cls(int(constants["k"]))

    def forward(self, pre: Tensor) -> Latents:
        """pre: (..., M)."""
        f = pre.relu()
        values, indices = torch.topk(f, min(self.k, f.shape[-1]), dim=-1, sorted=False)
        return Latents(raw=f, competed=torch.zeros_like(f).scatter(-1, indices, values))

    def constants(self) -> dict[str, Any]:
        """k."""
        return {"k": self.k}
