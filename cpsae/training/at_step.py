"""The autoencoder of a run as it was after a step: as it was finished then, or of a checkpoint."""

import torch
from pydantic import ValidationError

from cpsae.errors import CpsaeError, RunError, first_line
from cpsae.sae.autoencoder import SparseAutoencoder, load
from cpsae.sae.kinds import load_kind
from cpsae.store import Manifest
from cpsae.store.provenance import provenance
from cpsae.training.checkpoint import list_checkpoints, load_checkpoint, step_of, unusable
from cpsae.training.member import run_plan
from cpsae.training.run_folder import RunFolder
from cpsae.training.settings import FitSettings
from cpsae.training.step import autoencoder_of


def steps_at_hand(run: RunFolder) -> list[int]:
    """The steps whose autoencoder can be had, the first first."""
    checkpoints = [step_of(path) for path in list_checkpoints(run.checkpoints)]
    return sorted({*checkpoints, *run.finished_steps()})


def load_at(run: RunFolder, step: int, device: torch.device | str) -> SparseAutoencoder:
    """The autoencoder after update `step`, in eval mode. Raises RunError where that step is not at
    hand, or its files are broken."""
    config = run.read_config()
    if run.converted:
        raise RunError(f"{run.path}: was converted, so it has no steps; leave the step out")
    if run.kept(step).complete:
        return load(run.kept(step).path, device)
    if step in run.finished_steps():
        return load(run.path, device)
    path = next((p for p in list_checkpoints(run.checkpoints) if step_of(p) == step), None)
    if path is None:
        steps = ", ".join(f"{step:,}" for step in steps_at_hand(run)) or "none yet"
        raise RunError(
            f"{run.path}: has no step {step:,} to load; there are: {steps} (the last "
            "keep_checkpoints of every checkpoint_every)"
        )
    facts, checkpoint = run.facts(), load_checkpoint(path)
    try:
        settings = FitSettings.model_validate(config["settings"])
        manifest = Manifest.model_validate(config["store"]["manifest"])
        hook = provenance(manifest, config["store"]["identity"])
        plan = run_plan(settings, facts.schedule, manifest.d)
        kind = load_kind(settings.kind)(settings.method, plan)
        kind.updates = step
    except (KeyError, TypeError, ValidationError, CpsaeError) as error:
        raise RunError(f"{run.config}: {first_line(error)}; restore it from a copy") from None
    try:
        sae = autoencoder_of(
            checkpoint.tensors,
            kind,
            settings.center,
            n_enabled=checkpoint.state["n_enabled"],
            normalizer=facts.normalizer,
            hook=hook,
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise unusable(path, "does not fit this run", error) from None
    return sae.to(device)
