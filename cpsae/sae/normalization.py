"""How rows are scaled before the encoder, and back after the decoder (reading 12). All in float32.

Names: x raw vectors (..., D), D dimensions.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpsae.errors import CpsaeError, SettingsError

PER_ROW = ("layer", "layer-variance")
SCALED = ("unit", "sqrt-d")
NAMES = (*PER_ROW, *SCALED, "none")

# Rows of zero norm (a constant vector under `layer`) are divided by this instead.
_SMALLEST_SCALE = 1e-12


class InputError(CpsaeError, ValueError):
    """Vectors that an autoencoder cannot take as they are given."""


@dataclass(frozen=True)
class Normalizer:
    """x -> (x - center) / scale, and back.

    layer           each row: center is its mean over D, scale makes its norm 1
    layer-variance  the same, but its variance 1 (so its norm sqrt(D)), as in a network
    unit, sqrt-d    one `scale` for all rows, from the training rows' statistics; no center
    none            left alone
    """

    name: str
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"normalize '{self.name}' is not one of {', '.join(NAMES)}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"the scale of normalize '{self.name}' is {self.scale}, not above 0")

    @classmethod
    def from_statistics(
        cls, name: str, d: int, *, mean_squared_norm: float, mean_norm: float
    ) -> "Normalizer":
        """The normaliser of rows with these statistics; only `unit` and `sqrt-d` look at them.

        unit: E||x||^2 = 1. sqrt-d: E||x|| = sqrt(d). Raises SettingsError where the statistic is
        0 or not finite, so that no scale follows.
        """
        if name not in SCALED:
            return cls(name)
        scale = math.sqrt(mean_squared_norm) if name == "unit" else mean_norm / math.sqrt(d)
        if not (math.isfinite(scale) and scale > 0):
            raise SettingsError(
                f"normalize={name}: the training rows' mean norm is {mean_norm}, which gives no "
                "scale; look at the store with `cpsae info`, or take normalize=none"
            )
        return cls(name, scale)

    @property
    def per_row(self) -> bool:
        """Whether `denormalize` needs the original rows."""
        return self.name in PER_ROW

    def normalize(self, x: Tensor) -> Tensor:
        """x: (..., D) raw, any floating dtype -> (..., D) float32."""
        x = x.float()
        if self.per_row:
            center, scale = self._row_constants(x)
            return (x - center) / scale
        return x if self.name == "none" else x / self.scale

    def denormalize(self, x_hat: Tensor, like: Tensor | None = None) -> Tensor:
        """x_hat: (..., D) normalised -> (..., D) float32 raw.

        like: the raw rows that x_hat reconstructs, (..., D), whose own mean and norm are put back.
        Raises InputError where a per-row normalisation is not given them.
        """
        x_hat = x_hat.float()
        if self.per_row:
            if like is None:
                raise InputError(
                    f"normalize={self.name} scales each row by itself: pass the raw vectors that "
                    "the latents came from, decode(f, like=x)"
                )
            if like.shape != x_hat.shape:
                raise InputError(
                    f"`like` has shape {tuple(like.shape)}, but the reconstruction "
                    f"{tuple(x_hat.shape)}: pass the raw vectors that the latents came from"
                )
            center, scale = self._row_constants(like.float())
            return x_hat * scale + center
        return x_hat if self.name == "none" else x_hat * self.scale

    def to_json(self) -> dict[str, Any]:
        """The constants that sae.json holds."""
        scale = {"scale": self.scale} if self.name in SCALED else {}
        return {"name": self.name, **scale}

    @classmethod
    def from_json(cls, constants: dict[str, Any]) -> "Normalizer":
        """The inverse of `to_json`. KeyError, TypeError or ValueError where it is malformed."""
        name = str(constants["name"])
        return cls(name, float(constants["scale"])) if name in SCALED else cls(name)

    def _row_constants(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the scale of each row, both (..., 1) float32."""
        center = x.mean(dim=-1, keepdim=True)
        scale = torch.linalg.vector_norm(x - center, dim=-1, keepdim=True)
        if self.name == "layer-variance":
            scale = scale / math.sqrt(x.shape[-1])
        return center, scale.clamp_min(_SMALLEST_SCALE)
