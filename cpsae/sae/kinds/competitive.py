"""The paper's kind: softmax competition (Eq. 5) whose temperature follows utilisation (Eq. 6)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from cpsae.config import Settings
from cpsae.sae.affine import affine
from cpsae.sae.competition import TemperatureSchedule, TemperatureSettings, compete
from cpsae.sae.form import Form
from cpsae.sae.kind import Latents, RunPlan, Spec, Weights, finite
from cpsae.sae.l1 import L1Kind, L1Settings


class CompetitionSettings(Settings):
    """Over which features the softmax of Eq. 5 is taken (reading 10)."""

    over: Literal["enabled", "active"] = "enabled"
    """enabled: all enabled ones, f = 0 counts with exp(0); active: those with f > 0."""


class CompetitiveSettings(L1Settings):
    """Settings of the competition, and the L1 term."""

    preset: ClassVar[dict[str, Any]] = {}
    temperature: TemperatureSettings = TemperatureSettings()
    competition: CompetitionSettings = CompetitionSettings()


class Competitive(L1Kind):
    """a = softmax(f / T) * f, f = ReLU(W_enc x + b_enc), with the L1 term of Eq. 2."""

    name = "competitive"
    works_split = True
    Settings = CompetitiveSettings
    settings: CompetitiveSettings
    state: ClassVar[Mapping[str, Spec]] = {
        "temperature": Spec("", dtype=torch.float64, saved="temperature")
    }

    def __init__(self, settings: CompetitiveSettings, plan: RunPlan) -> None:
        """At T_0, with T_base annealed over the setting's steps, scaled to the run."""
        super().__init__(settings, plan)
        steps = round(settings.temperature.anneal_steps * plan.schedule_scale)
        self.schedule = TemperatureSchedule(settings.temperature, steps)
        self.tensors["temperature"].fill_(self.schedule.start())

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D); all M enabled features share the softmax."""
        f = affine(x, w["w_enc"], w["b_enc"]).relu()
        over = self.settings.competition.over
        competed = compete(f, self.tensors["temperature"], over, self.group)
        return Latents(raw=f, competed=competed)

    def form(self, w: Weights) -> Form:  # noqa: ARG002
        """Softmax, at T as it stands."""
        levels = {"temperature": self.tensors["temperature"]}
        return Form("softmax", levels, {"over": self.settings.competition.over})

    def by_hand(self) -> bool:
        """Where all enabled features share the softmax."""
        return self.settings.competition.over == "enabled"

    def compete_into(self, f_bM: Tensor, a_bM: Tensor) -> None:
        """Eq. 5."""
        torch.mul(f_bM, 1 / float(self.tensors["temperature"]), out=a_bM)
        self.group.softmax(a_bM, out=a_bM).mul_(f_bM)

    def pull_back(self, f_bM: Tensor, a_bM: Tensor, g_bM: Tensor) -> None:
        """With s = a / f the softmax, df = s (g + (f g - <a, g>) / T): where one feature takes all,
        the brackets are 0 to the last bit."""
        own_b1 = torch.mul(a_bM, g_bM).sum(dim=1, keepdim=True)
        along_b1 = self.group.sum_of_features(own_b1)
        turned_bM = torch.mul(f_bM, g_bM).sub_(along_b1)
        g_bM.add_(turned_bM, alpha=1 / float(self.tensors["temperature"])).mul_(a_bM).div_(f_bM)

    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:  # noqa: ARG002
        """T_step from rho_step (Eq. 6)."""
        self.schedule.update(self.tensors["temperature"], step, rho)

    def schedule_lengths(self) -> dict[str, float]:
        """The annealing of T_base."""
        return {"temperature.anneal_steps": self.schedule.anneal_steps}

    def figures(self) -> dict[str, float]:
        """T. Waits for the GPU."""
        return {"temperature": float(self.tensors["temperature"])}

    def constants(self) -> dict[str, Any]:
        """T as it stands, and over which features the softmax is taken."""
        return {**super().constants(), "over": self.settings.competition.over}

    @classmethod
    def from_constants(cls, constants: Mapping[str, Any], d: int, n: int) -> Self:
        """With T fixed."""
        competition = CompetitionSettings.model_validate({"over": constants["over"]})
        kind = cls(CompetitiveSettings(competition=competition), RunPlan(d, n))
        temperature = finite(constants, "temperature")
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}, not above 0")
        kind.tensors["temperature"].fill_(temperature)
        return kind
