"""What the kinds that keep the largest latents of a batch have in common (Bussmann et al. 2024,
arXiv 2412.06410).

In training a batch keeps its k * B largest latents. At inference a row must not depend on its
neighbours, so latents above a fixed threshold are kept: the running mean of the smallest latent
that training batches kept.

Names: B rows, D dimensions, M enabled features.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from cpsae.config import Count
from cpsae.errors import SettingsError
from cpsae.sae.affine import affine
from cpsae.sae.dead_latents import ReviveSettings, RevivingKind
from cpsae.sae.form import Form
from cpsae.sae.group import Group
from cpsae.sae.kind import COMMON_PRESET, Latents, RunPlan, Spec, Weights

# About the last 100 batches: long enough to be steady, short enough to follow a run of 1,000 steps.
_MOMENTUM = 0.99
_SAMPLED = 61
"""One of so many entries is looked at to guess where the batch's largest begin: a prime, so that a
sample has all features."""
_MIN_FIRE_SHARE = 0.7
"""Of what a batch keeps: as much may be forced."""
_MIN_FIRE_UNTIL = 0.9
"""Part of the run after which none is forced any more, so that the threshold settles."""


class TopKSettings(ReviveSettings):
    """How many latents, and how dead ones are revived."""

    k: Count = Field(32, ge=1)
    """Latents a row."""


def fitting_k(settings: TopKSettings, n: int) -> int:
    """`k`. Raises SettingsError where it is above n."""
    if settings.k > n:
        raise SettingsError(
            f"k = {settings.k} is above n_latents ({n}): take a smaller k or a larger dictionary"
        )
    return settings.k


class BatchTopKSettings(TopKSettings):
    """How many latents a row on average, and how rare features are kept alive."""

    k_start: float = Field(1.0, ge=1)
    """Times k that a row has at first; from there it falls to k, evenly in its logarithm."""
    k_until: float = Field(0.5, gt=0, le=1)
    """Part of the run after which it is k."""
    preset: ClassVar[dict[str, Any]] = {**COMMON_PRESET, "min_fire_every": 1}
    min_fire_every: Count = Field(0, ge=0)
    """Once in so many batches each feature fires on the row where it is largest (MinFire), within
    the same k * B, of which that takes up to 70 %; 0: never."""


class BatchTopKKind(RevivingKind):
    """a = f where f is among the batch's k * B largest (training) or f > threshold (inference)."""

    Settings = BatchTopKSettings
    settings: BatchTopKSettings
    inference_settings: ClassVar[tuple[str, ...]] = ("k",)
    state: ClassVar[Mapping[str, Spec]] = {
        **RevivingKind.state,
        "threshold": Spec("", dtype=torch.float64, saved="threshold"),
    }

    def __init__(self, settings: BatchTopKSettings, plan: RunPlan) -> None:
        """Raises SettingsError where k is above n."""
        super().__init__(settings, plan)
        self.k = fitting_k(settings, plan.n)

    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D)."""
        f = affine(x, w["w_enc"], w["b_enc"]).relu()
        kept = f.masked_fill(f <= self.tensors["threshold"].to(f.dtype), 0)
        return Latents(raw=f, competed=kept)

    def form(self, w: Weights) -> Form:
        """JumpReLU, with one threshold for all."""
        return jumping_at(self.tensors["threshold"], w)

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """x: (B, D). `kept` is None where rare features were made to fire."""
        pre = affine(x_BD, w["w_enc"], w["b_enc"])
        f = pre.relu()
        every = self._forced_every(f)
        entries = self.largest(f.detach(), _levels(f.detach(), every, self.updates, self.group))
        values = f.flatten()[entries]
        kept = torch.zeros_like(f).flatten().scatter_(0, entries, values).view_as(f)
        smallest = None if every else values
        return Latents(raw=f, competed=kept, pre=pre, kept=smallest, entries=entries)

    def largest(self, f_BM: Tensor, level_M: Tensor | None = None) -> Tensor:
        """(E,) where the largest of the group's batch are, as numbers of the given entries; first
        of all those that are not below their feature's level."""
        f, count = f_BM.flatten(), self._count(f_BM)
        if f.device.type == "cpu":  # elsewhere to look is to wait
            # one number for all processes: none may leave out what is above another's
            below = self.group.smallest(_below_largest(f, count * self._share(f_BM)))
            seen_BM = f_BM > float(below)
            if level_M is not None:
                seen_BM |= f_BM >= level_M
            above = seen_BM.flatten().nonzero().squeeze(1)
            if count <= self.group.count(len(above)):
                order = f[above]
                if level_M is not None:
                    order.masked_fill_(order >= level_M[above % len(level_M)], torch.inf)
                return above[self.group.largest(order, count)]
        order = f if level_M is None else f_BM.masked_fill(f_BM >= level_M, torch.inf).flatten()
        return self.group.largest(order, count)

    def share_kept(self) -> float:
        """Of n, at the beginning of the run."""
        return self.budget(0) / self.plan.n

    @torch.no_grad()
    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:
        """Take the batch's smallest kept latent into the threshold."""
        super().after_step(step, rho, latents)
        if latents.kept is not None:
            follow(self.tensors["threshold"], self.group.smallest(latents.kept))

    def budget(self, updates: int) -> float:
        """Latents a row of the update after so many."""
        done = min(1.0, updates / max(self._falling_steps(), 1))
        return float(self.k * self.settings.k_start ** (1 - done))

    def schedule_lengths(self) -> dict[str, float]:
        """When a latent is dead, until when k falls and until when features are made to fire."""
        falling = {"k_until": self._falling_steps()} if self.settings.k_start > 1 else {}
        forced = {"min_fire_every": self._forced_steps()} if self.settings.min_fire_every else {}
        return {**super().schedule_lengths(), **falling, **forced}

    @classmethod
    def from_constants(cls, constants: Mapping[str, Any], d: int, n: int) -> Self:
        """Takes `k` and every threshold of `state`."""
        kind = super().from_constants(constants, d, n)
        for name, spec in cls.state.items():
            if spec.saved and kind.tensors[name] < 0:
                raise ValueError(f"{spec.saved} is {constants[spec.saved]}, not 0 or more")
        return kind

    def _count(self, f_BM: Tensor) -> int:
        """Latents that the group's batch keeps."""
        batch = self.group.rows(f_BM.shape[0])
        return min(
            round(batch * self.budget(self.updates)), batch * self.group.whole(f_BM.shape[1])
        )

    def _share(self, f_BM: Tensor) -> float:
        """Which part of all latents of the group's batch these are."""
        batch, m = f_BM.shape
        return f_BM.numel() / (self.group.rows(batch) * self.group.whole(m))

    def _forced_every(self, f_BM: Tensor) -> int:
        """Every how many features one is made to fire in this batch; 0: none is."""
        if not self.settings.min_fire_every or self.updates >= self._forced_steps():
            return 0
        m = self.group.whole(f_BM.shape[1])
        fitting = math.ceil(m / max(1, _MIN_FIRE_SHARE * self._count(f_BM)))
        return max(self.settings.min_fire_every, fitting)

    def _falling_steps(self) -> float:
        return self.settings.k_until * self.plan.steps

    def _forced_steps(self) -> float:
        return _MIN_FIRE_UNTIL * self.plan.steps


def jumping_at(threshold: Tensor, w: Weights) -> Form:
    """JumpReLU with the threshold (0-d) that `encode` compares with, in the dtype of weights."""
    rounded = threshold.to(w["b_enc"].dtype)
    return Form("jumprelu", {"threshold": rounded.expand(len(w["b_enc"]))})


def follow(threshold: Tensor, smallest: Tensor) -> None:
    """Move a threshold (0-d float64), in place, towards the smallest value that a batch kept; one
    that is 0 was never moved, and becomes it."""
    moved = torch.lerp(smallest.double(), threshold, _MOMENTUM)
    threshold.copy_(torch.where(threshold > 0, moved, smallest.double()))


def _levels(f_BM: Tensor, every: int, turn: int, group: Group) -> Tensor | None:
    """(M,) what one of every so many features, whose turn it is, has as its largest value of the
    group's batch, if that is above 0; infinity for others. None where none has a turn."""
    if not every:
        return None
    largest_M = group.maximum(f_BM.amax(dim=0))
    features_M = group.numbers(torch.arange(len(largest_M), device=largest_M.device))
    has_turn_M = (features_M % every == turn % every) & (largest_M > 0)
    return largest_M.masked_fill(~has_turn_M, torch.inf)


def _below_largest(f: Tensor, count: float) -> Tensor:
    """A number (0-d), 0 or more, which very likely a few more than `count` entries are above: from
    a sample, so that little has to be sorted."""
    sample = f[::_SAMPLED]
    expected = count / _SAMPLED
    rank = min(len(sample), math.ceil(expected + 4 * math.sqrt(expected)) + 1)
    return torch.topk(sample, rank).values[-1].clamp_min(0)
