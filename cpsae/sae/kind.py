"""What a kind of autoencoder is: the rule that turns pre-activations into latents.

A new kind is one new file in cpsae/sae/kinds with one subclass of `Kind`; the file's name is the
kind's name, and nothing else has to know of it.

Names: B rows, M enabled features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from cpsae.config import FitSettings
from cpsae.errors import SettingsError


class Latents(NamedTuple):
    """Encoder outputs before and after competition, both (..., M)."""

    raw: Tensor
    """f = ReLU(pre-activations)."""
    competed: Tensor
    """a, what the decoder gets."""


class Kind(nn.Module, ABC):
    """An activation rule. `train()` and `eval()` choose the rule where the two differ.

    Running values (a temperature, a threshold) are plain float64 scalars, not buffers, so that
    casting a module to another dtype leaves them exact.
    """

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: FitSettings, *, n: int, anneal_steps: int) -> Self:
        """A fresh one for training. n: size of the dictionary; anneal_steps: as scaled to the run.

        Raises SettingsError where the settings do not fit n.
        """

    @classmethod
    @abstractmethod
    def from_constants(cls, constants: dict[str, Any]) -> Self:
        """One for inference from what `constants` gave (other keys may be there too).

        Raises KeyError, TypeError or ValueError where they are malformed.
        """

    @abstractmethod
    def forward(self, pre: Tensor) -> Latents:
        """pre: (..., M) pre-activations of the enabled features; in training mode (B, M)."""

    def constants(self) -> dict[str, Any]:
        """What sae.json must hold for inference, as JSON values."""
        return {}

    @property
    def temperature(self) -> float | None:
        """T at present, for kinds that have one. Waits for the GPU."""
        return None

    def after_step(self, step: int, rho: float | Tensor) -> None:  # noqa: B027 (most do nothing)
        """Called once after update `step` (from 1) with rho_step, before features are enabled."""

    def running_state(self) -> dict[str, Any]:
        """What a resumed run needs beside the settings: JSON values, exact."""
        return {}

    def load_running_state(self, state: dict[str, Any]) -> None:  # noqa: B027 (most have none)
        """Restore `running_state()`."""

    def move_running_state(self, device: torch.device) -> None:  # noqa: B027 (most have none)
        """Keep running values on `device`; `.to(device)` calls this."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.move_running_state(fn(torch.zeros(())).device)
        return self


def fitting_k(settings: FitSettings, n: int) -> int:
    """`k`, for the kinds that count latents. Raises SettingsError where it is above n."""
    if settings.k > n:
        raise SettingsError(
            f"k = {settings.k} is above n_latents ({n}): take a smaller k or a larger dictionary"
        )
    return settings.k
