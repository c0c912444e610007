"""Competition between features (Eq. 5) and the temperature that governs it (Eq. 6).

Names: B rows, M enabled features, f encoder outputs, a latents, T temperature, rho utilisation.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from cpsae.config import TemperatureSettings
from cpsae.sae.precision import widen


def compete(
    f: Tensor, temperature: float | Tensor, over: Literal["enabled", "active"] = "enabled"
) -> Tensor:
    """Eq. 5: a_i = softmax(f / T)_i * f_i, over the last dimension.

    f: (..., M), not negative, the enabled features only; T: a number or a 0-d tensor. The result
    has f's shape and dtype; half precision is computed in float32. `enabled`: f = 0 counts with
    exp(0). `active`: only entries with f > 0 share the softmax; a row with none gives zeros
    (reading 10).
    """
    wide = widen(f)
    scores = wide / temperature
    if over == "enabled":
        return (torch.softmax(scores, dim=-1) * wide).to(f.dtype)
    active = wide > 0
    # The lowest finite number instead of -inf: a row without active entries would otherwise be
    # 0 / 0 = NaN, and so would its gradient.
    scores = scores.masked_fill(~active, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).masked_fill(~active, 0)
    return (weights * wide).to(f.dtype)


class TemperatureSchedule:
    """T over a run: Eq. 6, clamped, smoothed, with T_base annealed (readings 7, 8, 9).

    `value` is T as a 0-d float64 tensor. `update` changes it in place and never waits for a GPU.
    """

    def __init__(self, settings: TemperatureSettings, anneal_steps: int | None = None) -> None:
        """`anneal_steps` replaces the setting's where the schedule is scaled to a short run."""
        self.settings = settings
        self.anneal_steps = settings.anneal_steps if anneal_steps is None else anneal_steps
        self.value = torch.tensor(self.start(), dtype=torch.float64)

    @classmethod
    def constant(cls, temperature: float) -> "TemperatureSchedule":
        """A schedule that stays at `temperature`, for inference. ValueError where it is not > 0."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature {temperature} is not above 0")
        fixed = TemperatureSettings(
            base=temperature, min=temperature, max=temperature, sensitivity=0.0, anneal_steps=0
        )
        return cls(fixed)

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
    def update(self, step: int, rho: float | Tensor) -> None:
        """T_step = momentum * T_(step-1) + (1 - momentum) * clamp(Eq. 6 at rho_step).

        `step` counts from 1; rho: a number or a 0-d tensor, to whose device `value` moves.
        """
        momentum = self.settings.momentum
        if isinstance(rho, Tensor):
            self.to(rho.device)
            target = self._equation_6(step, rho.double())
            self.value.mul_(momentum).add_(target, alpha=1 - momentum)
        else:
            exact = self._equation_6(step, torch.tensor(rho, dtype=torch.float64))
            self.value.mul_(momentum).add_(float(exact), alpha=1 - momentum)

    def to(self, device: torch.device | str) -> None:
        """Keep T on `device`."""
        self.value = self.value.to(device)

    def state(self) -> dict[str, float]:
        """What a resumed run needs; a float64 survives JSON exactly."""
        return {"temperature": float(self.value)}

    def load_state(self, state: dict[str, float]) -> None:
        """Restore `state()`, on the device that `value` is on."""
        self.value.fill_(state["temperature"])

    def _equation_6(self, step: int, rho: Tensor) -> Tensor:
        """T_base * (1 + (exp(exp(rho) - 1) - 1) * s), clamped."""
        pull = torch.exp(torch.exp(rho) - 1) - 1
        raised = self.base(step) * (1 + pull * self.settings.sensitivity)
        return raised.clamp(self.settings.min, self.settings.max)
