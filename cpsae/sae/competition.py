"""Competition between features (Eq. 5) and the temperature that governs it (Eq. 6).

Names: B rows, M enabled features, f encoder outputs, a latents, T temperature, rho utilisation.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cpsae.config import Count, Settings
from cpsae.sae.group import ALONE, Group
from cpsae.sae.precision import widen


def compete(
    f: Tensor,
    temperature: float | Tensor,
    over: Literal["enabled", "active"] = "enabled",
    group: Group = ALONE,
) -> Tensor:
    """Eq. 5: a_i = softmax(f / T)_i * f_i, over the last dimension.

    f: (..., M), not negative, the enabled features only, or those that this process of the group
    holds; T: a number or a 0-d tensor. The result
    has f's shape and dtype; half precision is computed in float32. `enabled`: f = 0 counts with
    exp(0). `active`: only entries with f > 0 share the softmax; a row with none gives zeros
    (reading 10).
    """
    wide = widen(f)
    scores = wide / temperature
    if over == "enabled":
        return (group.softmax(scores) * wide).to(f.dtype)
    active = wide > 0
    # The lowest finite number instead of -inf: a row without active entries would otherwise be
    # 0 / 0 = NaN, and so would its gradient.
    scores = scores.masked_fill(~active, torch.finfo(scores.dtype).min)
    weights = group.softmax(scores).masked_fill(~active, 0)
    return (weights * wide).to(f.dtype)


class TemperatureSettings(Settings):
    """Temperature of the competition (Eq. 6; readings 7, 8, 9)."""

    base: float = Field(0.1, gt=0)
    """T_base once annealing has ended."""
    sensitivity: float = Field(0.3, ge=0)
    """s: how strongly utilisation raises the temperature."""
    min: float = Field(0.05, gt=0)
    max: float = Field(0.3, gt=0)
    """Bounds that clamp the result of Eq. 6."""
    momentum: float = Field(0.99, ge=0, lt=1)
    """T_t = momentum * T_(t-1) + (1 - momentum) * clamp(Eq. 6)."""
    anneal_from: float = Field(0.3, gt=0)
    """T_base at step 0."""
    anneal_steps: Count = Field(2000, ge=0)
    """Steps in which T_base falls linearly from `anneal_from` to `base`; 0 turns this off."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "TemperatureSettings":
        if self.min > self.max:
            raise ValueError(f"temperature.min ({self.min}) is above temperature.max ({self.max})")
        return self


class TemperatureSchedule:
    """T over a run: Eq. 6, clamped, smoothed, with T_base annealed (readings 7, 8, 9)."""

    def __init__(self, settings: TemperatureSettings, anneal_steps: int | None = None) -> None:
        """`anneal_steps` replaces the setting's where the schedule is scaled to a short run."""
        self.settings = settings
        self.anneal_steps = settings.anneal_steps if anneal_steps is None else anneal_steps

    def start(self) -> float:
        """T_0: Eq. 6 at rho = 0, which is T_base(0), clamped."""
        return min(max(self.base(0), self.settings.min), self.settings.max)

    def base(self, step: int) -> float:
        """T_base after `step` updates: linear from `anneal_from` to `base` in `anneal_steps`."""
        if step >= self.anneal_steps:
            return self.settings.base
        remaining = 1 - step / self.anneal_steps
        return self.settings.base + (self.settings.anneal_from - self.settings.base) * remaining

    @torch.no_grad()
    def update(self, temperature: Tensor, step: int, rho: Tensor) -> None:
        """T_step = momentum * T_(step-1) + (1 - momentum) * clamp(Eq. 6 at rho_step), in place.

        temperature, rho: 0-d float64 on one device, which is not waited for; `step` is from 1.
        """
        pull = torch.exp(torch.exp(rho) - 1) - 1
        raised = self.base(step) * (1 + pull * self.settings.sensitivity)
        target = raised.clamp(self.settings.min, self.settings.max)
        momentum = self.settings.momentum
        temperature.mul_(momentum).add_(target, alpha=1 - momentum)
