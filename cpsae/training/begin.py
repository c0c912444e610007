"""What a run begins with: normalisation, initial weights, the state before the first update."""

import numpy as np
import numpy.typing as npt
import torch

from cpsae.config import FitSettings
from cpsae.errors import SettingsError
from cpsae.sae.initialization import Parameters, initialize
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.store import StorePart
from cpsae.tensors import tensor_of
from cpsae.training.feed import ActivationFeed
from cpsae.training.schedule import Schedule
from cpsae.training.step import TrainState

_MEAN_ROWS = 1 << 18
"""Rows that the initial b_dec is the mean of, at most: a quarter of a million settle it."""
_BLOCK_ROWS = 4096
"""Rows normalised at a time, so that memory does not grow with the chunks."""


def refuse_unfit(part: StorePart, settings: FitSettings) -> None:
    """Raises SettingsError, before anything is written, where they do not fit the store."""
    if settings.batch_size > part.vectors:
        raise SettingsError(
            f"batch_size {settings.batch_size} is above the store's {part.vectors} training rows; "
            "take a smaller --batch-size"
        )
    load_kind(settings.kind).from_settings(settings, n=settings.n_latents or part.d, anneal_steps=0)


def begin(
    feed: ActivationFeed,
    settings: FitSettings,
    schedule: Schedule,
    device: torch.device,
    *,
    precision: str = "float32",
    restoring: bool = False,
) -> TrainState:
    """The state before update 1, its products in `precision` (bfloat16 or float32).

    With `restoring` its weights are about to be replaced, so that no row is read for them. Raises
    SettingsError where the settings do not fit the store.
    """
    part = feed.part
    refuse_unfit(part, settings)
    n = settings.n_latents or part.d
    normalizer = normalizer_of(part, settings, feed.norm_bound)
    kind = load_kind(settings.kind).from_settings(settings, n=n, anneal_steps=schedule.anneal_steps)
    mean_matters = settings.init == "tied" and not restoring
    b_dec = mean_normalized(feed, normalizer) if mean_matters else None
    try:
        weights = initialize(part.d, n, settings.init, b_dec, settings.seed)
        placed = Parameters(*(weight.to(device) for weight in weights))
        return TrainState(placed, kind, normalizer, settings, precision == "bfloat16")
    except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU the text alone tells
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise SettingsError(
            f"n_latents {n}: the weights of {n:,} x {part.d} and their moments do not fit the "
            f"memory of {device}; take a smaller --n-latents"
        ) from None


def normalizer_of(part: StorePart, settings: FitSettings, norm_bound: np.float64) -> Normalizer:
    """Scalars come from the norms of all training rows that count, in float64."""
    count, total, squared = 0, 0.0, 0.0
    for chunk in part.chunks:
        norms = _counted(part.norms(chunk), norm_bound)
        count += len(norms)
        total += float(norms.sum())
        squared += float(np.square(norms).sum())
    return Normalizer.from_statistics(
        settings.normalize,
        part.d,
        mean_squared_norm=squared / max(count, 1),
        mean_norm=total / max(count, 1),
    )


def mean_normalized(feed: ActivationFeed, normalizer: Normalizer) -> torch.Tensor:
    """Mean (d,) of the normalised rows that count, of the first chunks of the feed's epoch 0."""
    part = feed.part
    total, count = torch.zeros(part.d, dtype=torch.float64), 0
    for chunk in feed.chunk_order(0):
        kept = np.flatnonzero(part.norms(chunk) <= feed.norm_bound)
        rows = part.rows(chunk)
        for start in range(0, len(kept), _BLOCK_ROWS):
            block = tensor_of(rows[kept[start : start + _BLOCK_ROWS]])
            total += normalizer.normalize(block).sum(dim=0, dtype=torch.float64)
        count += len(kept)
        if count >= _MEAN_ROWS:
            break
    return (total / max(count, 1)).float()


def _counted(norms: npt.NDArray[np.float32], norm_bound: np.float64) -> npt.NDArray[np.float64]:
    return norms[norms <= norm_bound].astype(np.float64)
