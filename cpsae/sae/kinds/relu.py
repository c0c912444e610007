"""The baseline: latents are the encoder's outputs, a = f (METHOD section 1)."""

from typing import Any, Self

from torch import Tensor

from cpsae.config import FitSettings
from cpsae.sae.kind import Kind, Latents


class ReLU(Kind):
    """a = f = ReLU(pre)."""

    @classmethod
    def from_settings(cls, settings: FitSettings, *, n: int, anneal_steps: int) -> Self:  # noqa: ARG003
        """Takes nothing from the settings."""
        return cls()

    @classmethod
    def from_constants(cls, constants: dict[str, Any]) -> Self:  # noqa: ARG003
        """Takes no constants."""
        return cls()

    def forward(self, pre: Tensor) -> Latents:
        """pre: (..., M)."""
        f = pre.relu()
        return Latents(raw=f, competed=f)
