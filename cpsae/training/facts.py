"""Facts of a run: what it takes from its store's first rows and from its machine. They are found
once, at its beginning, recorded in its folder, and read at every resume: so a run goes on the same
when its store has grown, and on another kind of device.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cpsae.errors import SettingsError
from cpsae.sae.normalization import Normalizer
from cpsae.store import StorePart
from cpsae.store.bound import first_norms, norm_bound
from cpsae.training.schedule import Schedule
from cpsae.training.settings import FitSettings


@dataclass(frozen=True)
class Facts:
    """What a run was begun with, beside its settings."""

    norm_bound: float
    """Rows with a larger norm are skipped; infinite where none are."""
    normalizer: Normalizer
    precision: str
    """Of matrix products, bfloat16 or float32, decided once: another device would change it."""
    schedule: Schedule
    skipped_share: float
    """Of the first rows: how many are over the bound."""
    n_enabled: int | None = None
    """Features that are enabled at its beginning, where it goes on from another run."""

    def as_json(self) -> dict[str, Any]:
        """For config.json."""
        return {
            "norm_bound": self.norm_bound if math.isfinite(self.norm_bound) else None,
            "normalization": self.normalizer.to_json(),
            "precision": self.precision,
            "schedule": self.schedule.as_json(),
            "skipped_share": self.skipped_share,
            **({} if self.n_enabled is None else {"n_enabled": self.n_enabled}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Facts":
        """The inverse. KeyError, TypeError or ValueError where it is malformed."""
        bound, enabled = values["norm_bound"], values.get("n_enabled")
        return cls(
            norm_bound=math.inf if bound is None else float(bound),
            normalizer=Normalizer.from_json(values["normalization"]),
            precision=str(values["precision"]),
            schedule=Schedule(**values["schedule"]),
            skipped_share=float(values["skipped_share"]),
            n_enabled=None if enabled is None else int(enabled),
        )


def find_facts(part: StorePart, settings: FitSettings, device: torch.device) -> Facts:
    """Of a run on these training rows that begins now. Raises SettingsError where its settings do
    not fit them."""
    if settings.batch_size > part.vectors:
        raise SettingsError(
            f"batch_size {settings.batch_size} is above the store's {part.vectors} training rows; "
            "take a smaller --batch-size"
        )
    bound = norm_bound(part, settings.max_norm)
    norms = first_norms(part)
    counted = norms[norms <= bound].astype(np.float64)
    normalizer = Normalizer.from_statistics(
        settings.normalize,
        part.d,
        mean_squared_norm=float(np.square(counted).sum()) / max(len(counted), 1),
        mean_norm=float(counted.sum()) / max(len(counted), 1),
    )
    return Facts(
        norm_bound=float(bound),
        normalizer=normalizer,
        precision=_precision(settings, device),
        schedule=Schedule.of(
            settings, part.vectors, settings.batch_size, settings.n_latents or part.d
        ),
        skipped_share=1 - len(counted) / max(len(norms), 1),
    )


def _precision(settings: FitSettings, device: torch.device) -> str:
    """The setting, `auto` decided by the device."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if device.type == "cuda" else "float32"
