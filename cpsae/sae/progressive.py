"""Progressive feature enabling: importance (Eq. 3), growth (Eq. 4), the number enabled.

The enabled features are a prefix of the dictionary (reading 6).
Names: B rows, N features, M enabled features (n_(t-1) in the paper), v importance,
rho utilisation, f encoder outputs before competition.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cpsae.config import Count, Settings
from cpsae.sae.group import ALONE, Group

Growth = Literal["hybrid", "fixed", "linear", "none"]

_FIXED_GROWTH = 5


class EnablingSettings(Settings):
    """Progressive feature enabling, for every kind alike."""

    growth: Growth = "hybrid"
    """hybrid: Eq. 4; fixed: always 5; linear: evenly, so that all are enabled at `growth_until`;
    none: all features enabled from step 0."""
    growth_every: Count = Field(1, ge=1)
    """Steps between two growths (reading 5)."""
    growth_until: float = Field(0.6, gt=0, le=1)
    """Part of the run after which linear growth has enabled all features."""
    initial_fraction: float = Field(0.25, gt=0, le=1)
    """n_0 = floor(initial_fraction * n), at least 1."""
    utilisation: Literal["mean", "any"] = "mean"
    """The indicator of Eq. 3 averaged over the batch, or 1 where any row has it (reading 3)."""
    importance_beta: float = Field(0.9, ge=0, lt=1)
    """beta of Eq. 3."""
    importance_threshold: float = Field(0.01, ge=0)
    """tau of Eq. 3."""


class Importance:
    """v of Eq. 3 and the utilisation rho that follows from it (reading 3).

    `v_N` is float64: the share of a batch in which a feature fires is then exact, and so is a
    comparison of rho with the bounds of Eq. 4. Features not yet enabled keep v = 0.
    """

    def __init__(
        self,
        n: int,
        *,
        beta: float = 0.9,
        threshold: float = 0.01,
        utilisation: Literal["mean", "any"] = "mean",
        device: torch.device | str = "cpu",
    ) -> None:
        self.beta = beta
        self.threshold = threshold
        self.utilisation = utilisation
        self.v_N = torch.zeros(n, dtype=torch.float64, device=device)

    @classmethod
    def from_settings(
        cls, settings: EnablingSettings, n: int, device: torch.device | str = "cpu"
    ) -> "Importance":
        """Importance of a dictionary of n features, as the settings ask."""
        return cls(
            n,
            beta=settings.importance_beta,
            threshold=settings.importance_threshold,
            utilisation=settings.utilisation,
            device=device,
        )

    @torch.no_grad()
    def indicator(self, f_BM: Tensor, group: Group = ALONE) -> Tensor:
        """1[f > tau] of the group's batch, (M,) float64: its mean over the rows, or 1 where any row
        has it.

        f, of this process's rows, is a ReLU's output, so |f| of Eq. 3 is f.
        """
        if self.utilisation == "any":
            return group.maximum((f_BM > self.threshold).any(dim=0)).double()
        # A float32 sum of ones is exact up to 2^24 rows, and as a product faster than any other.
        fires_BM = f_BM.new_empty(f_BM.shape, dtype=torch.float32)
        torch.gt(f_BM, self.threshold, out=fires_BM)
        count_M = (fires_BM.new_ones(len(f_BM)) @ fires_BM).double()
        return group.total(count_M) / group.rows(len(f_BM))

    @torch.no_grad()
    def update(self, indicator_M: Tensor, group: Group = ALONE) -> Tensor:
        """Move v of the first M features that this process holds towards the indicator (Eq. 3); rho
        as a 0-d float64."""
        v_M = self.v_N[: indicator_M.shape[0]]
        v_M.mul_(self.beta).add_(indicator_M, alpha=1 - self.beta)
        return group.mean_of_features(v_M)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs: v."""
        return {"importance": self.v_N}


def growth(rho: float, n: int, rule: Literal["hybrid", "fixed", "none"] = "hybrid") -> int:
    """Features to enable next (Eq. 4). n is the size of the whole dictionary.

    hybrid: Eq. 4; fixed: the ablation's 5; none: 0, as all are enabled from the start.
    """
    if rule == "none":
        return 0
    if rule == "fixed" or rho < 0.3:
        return _FIXED_GROWTH
    if rho < 0.6:
        return min(7, max(2, math.floor(0.10 * n * rho)))
    return min(10, max(4, math.floor(0.15 * n * rho)))


class Enabling:
    """How many of the n features are enabled: n_t = min(n, n_(t-1) + growth)."""

    def __init__(
        self,
        n: int,
        *,
        rule: Growth = "hybrid",
        growth_every: int = 1,
        growth_steps: int = 0,
        initial_fraction: float = 0.25,
    ) -> None:
        """growth_steps: after which linear growth has enabled all."""
        self.n = n
        self.rule: Growth = rule
        self.growth_every = growth_every
        self.growth_steps = growth_steps
        self.start = n if rule == "none" else max(1, math.floor(initial_fraction * n))
        self.n_enabled = self.start

    @classmethod
    def from_settings(cls, settings: EnablingSettings, n: int, steps: int = 0) -> "Enabling":
        """Enabling of a dictionary of n features in a run of so many steps, as the settings ask."""
        return cls(
            n,
            rule=settings.growth,
            growth_every=settings.growth_every,
            growth_steps=round(settings.growth_until * steps),
            initial_fraction=settings.initial_fraction,
        )

    def begin_at(self, n_enabled: int) -> None:
        """With as many as another run had enabled."""
        self.start = self.n_enabled = n_enabled

    @property
    def complete(self) -> bool:
        """Whether all features are enabled."""
        return self.n_enabled >= self.n

    def schedule_lengths(self) -> dict[str, float]:
        """What hangs on the length of the run, as of a kind."""
        return {"growth_until": self.growth_steps} if self.rule == "linear" else {}

    def advance(self, step: int, rho: float | Tensor) -> int:
        """Enable what the rule adds after update `step` (from 1); the number of features added.

        A tensor rho is read, which waits for its GPU, only where the number depends on it.
        """
        if self.complete or step % self.growth_every != 0:
            return 0
        if self.rule == "linear":
            # never below 0: a run that was stretched may be ahead of its longer schedule
            asked = max(0, self._evenly(step) - self.n_enabled)
        else:
            asked = growth(float(rho) if self.rule == "hybrid" else 0.0, self.n, self.rule)
        added = min(self.n - self.n_enabled, asked)
        self.n_enabled += added
        return added

    def _evenly(self, step: int) -> int:
        """Enabled after `step` updates of linear growth."""
        done = min(1.0, step / max(self.growth_steps, 1))
        return self.start + math.floor(done * (self.n - self.start))

    def state(self) -> dict[str, int]:
        """What a resumed run needs."""
        return {"n_enabled": self.n_enabled}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Restore `state()`. ValueError where it does not fit the dictionary."""
        if not 1 <= state["n_enabled"] <= self.n:
            raise ValueError(f"n_enabled {state['n_enabled']} is not within 1 and {self.n}")
        self.n_enabled = state["n_enabled"]
