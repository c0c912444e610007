"""When features begin anew: those that are enabled late, and those that are dead.

Names: B rows, D dimensions, N features, M enabled features.
"""

import torch
from torch import Tensor

from cpsae.sae.births import BirthSettings, draw_directions, firing_level
from cpsae.sae.group import ALONE, Group
from cpsae.sae.kind import Latents, RunPlan
from cpsae.training.optimizer import PrefixAdam
from cpsae.training.rules import Objective

_OF_A_RUN = 1_000_003
"""What a run's seed is multiplied by, so that its births differ from those of the next seed."""


class Births:
    """Lets features begin anew after an update, along residuals of its batch."""

    def __init__(
        self,
        settings: BirthSettings,
        plan: RunPlan,
        seed: int,
        device: torch.device | str = "cpu",
        group: Group = ALONE,
    ) -> None:
        self.settings = settings
        self.group = group
        self.seed = seed
        every = settings.revive_every
        self.revive_every = max(1, round(every * plan.schedule_scale)) if every else 0
        self.revive_until = round(settings.revive_until * plan.steps)
        counted = group.features(plan.n) if self.revive_every else 0
        self.rows_since_fired_N = torch.zeros(counted, dtype=torch.int64, device=device)
        """(N,) of the features that this process holds, or (0,) where none is revived."""

    def schedule_lengths(self) -> dict[str, float]:
        """What hangs on the length of the run, as of a kind."""
        if not self.revive_every:
            return {}
        return {"revive_every": self.revive_every, "revive_until": self.revive_until}

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs: nothing where none is revived."""
        return {"rows_since_fired": self.rows_since_fired_N} if self.revive_every else {}

    @torch.no_grad()
    def after_update(
        self,
        step: int,
        added: range,
        x_BD: Tensor,
        latents: Latents,
        objective: Objective,
        optimizer: PrefixAdam,
    ) -> int:
        """Give features of update `step` their beginning; how many, in the whole group.

        x: this process's rows of the batch, normalised, and the latents (B, M) that they had of its
        features; added: which of the dictionary were enabled after it. To look for dead features is
        to wait for the GPU.
        """
        m, born = latents.competed.shape[1], []
        if self.revive_every:
            since_M = self.rows_since_fired_N[:m]
            batch = self.group.rows(len(x_BD))
            since_M.add_(batch).masked_fill_(self.group.maximum(latents.fired()), 0)
            if step % self.revive_every == 0 and step <= self.revive_until:
                dead = (since_M >= self.revive_every * batch).nonzero().squeeze(1)
                born.append(self.group.all_features(dead))
        if added and self.settings.new_features == "residual":
            born.append(torch.arange(added.start, added.stop, device=x_BD.device))
        features = torch.cat(born) if born else torch.zeros(0, dtype=torch.int64)
        if len(features):
            self._begin(step, features, x_BD, m, objective, optimizer)
        return len(features)

    def _begin(
        self,
        step: int,
        features: Tensor,
        x_BD: Tensor,
        m: int,
        objective: Objective,
        optimizer: PrefixAdam,
    ) -> None:
        generator = torch.Generator().manual_seed((self.seed * _OF_A_RUN + step) % 2**63)
        residual_BD = x_BD - objective.reconstruct(optimizer.prefix(m), x_BD)
        x_BD, residual_BD = self.group.gather(x_BD), self.group.gather(residual_BD)
        if not residual_BD.isfinite().all():
            return  # the run has diverged, which is told where its loss and weights are looked at
        directions_KD = draw_directions(residual_BD, len(features), generator)
        seen_BD = x_BD - optimizer.weights["b_dec"] if objective.center else x_BD
        level_K = firing_level(seen_BD, directions_KD, self.settings.firing_share)
        # each has drawn the same, unless one rounds in another way and so draws another row
        directions_KD, level_K = map(self.group.of_leader, (directions_KD, level_K))
        held, own = self.group.held_of(features)
        objective.kind.begin(optimizer.weights, own, directions_KD[held], level_K[held])
        optimizer.forget(own)
        if self.revive_every:
            self.rows_since_fired_N[own] = 0
