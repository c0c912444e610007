"""The paper's kind: softmax competition (Eq. 5) whose temperature follows utilisation (Eq. 6)."""

from typing import Any, Literal, Self

import torch
from torch import Tensor

from cpsae.config import FitSettings
from cpsae.sae.competition import TemperatureSchedule, compete
from cpsae.sae.kind import Kind, Latents


class Competitive(Kind):
    """a = softmax(f / T) * f, f = ReLU(pre)."""

    def __init__(self, schedule: TemperatureSchedule, over: Literal["enabled", "active"]) -> None:
        super().__init__()
        self.schedule = schedule
        self.over: Literal["enabled", "active"] = over

    @classmethod
    def from_settings(cls, settings: FitSettings, *, n: int, anneal_steps: int) -> Self:  # noqa: ARG003
        """At T_0, with T_base annealed over `anneal_steps`."""
        schedule = TemperatureSchedule(settings.temperature, anneal_steps)
        return cls(schedule, settings.competition.over)

    @classmethod
    def from_constants(cls, constants: dict[str, Any]) -> Self:
        """With `temperature` fixed."""
        over = constants["over"]
        if over not in ("enabled", "active"):
            raise ValueError(f"over is {over!r}, neither 'enabled' nor 'active'")
        return cls(TemperatureSchedule.constant(float(constants["temperature"])), over)

    def forward(self, pre: Tensor) -> Latents:
        """pre: (..., M) of the enabled features, all of which share the softmax."""
        f = pre.relu()
        return Latents(raw=f, competed=compete(f, self.schedule.value, self.over))

    def constants(self) -> dict[str, Any]:
        """T as it stands, and over which features the softmax is taken."""
        return {"temperature": float(self.schedule.value), "over": self.over}

    @property
    def temperature(self) -> float:
        """T as it stands. Waits for the GPU."""
        return float(self.schedule.value)

    def after_step(self, step: int, rho: float | Tensor) -> None:
        """T_step from rho_step (Eq. 6)."""
        self.schedule.update(step, rho)

    def running_state(self) -> dict[str, Any]:
        """T."""
        return dict(self.schedule.state())

    def load_running_state(self, state: dict[str, Any]) -> None:
        """Restore T."""
        self.schedule.load_state(state)

    def move_running_state(self, device: torch.device) -> None:
        """Keep T on `device`."""
        self.schedule.to(device)
