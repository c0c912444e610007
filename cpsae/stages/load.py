"""The autoencoder of a run, as one calls it."""

from os import PathLike

import torch

from cpsae.errors import RunError
from cpsae.sae import autoencoder
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.files import WEIGHTS
from cpsae.training.at_step import load_at, steps_at_hand
from cpsae.training.run_folder import RunFolder


def load(
    run: str | PathLike[str], device: torch.device | str = "cpu", *, step: int | None = None
) -> SparseAutoencoder:
    """The autoencoder of a run folder, in eval mode on `device`: as it was finished, or after
    update `step` of any run, finished or not, whose checkpoint is still there.

    Raises RunError (one line) where there is no such folder, no autoencoder in it, or one whose
    files are broken or contradict each other.
    """
    folder = RunFolder(run)
    if step is not None:
        return load_at(folder, step, device)
    if folder.started and not (folder.path / WEIGHTS).exists() and steps_at_hand(folder):
        last = steps_at_hand(folder)[-1]
        raise RunError(
            f"{folder.path}: is not finished; its last checkpoint is of step {last:,}: take that "
            f"with step={last} (--step {last}), or run the same `cpsae fit` again to complete it"
        )
    return autoencoder.load(folder.path, device)
