"""A run measured on held-out rows, and through the language model, as one calls it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cpsae.device import choose_device
from cpsae.errors import RunError, SettingsError, StoreError
from cpsae.evaluation.held_out import HeldOutResult, measure
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.events import OnEvent, ignore
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.stages.fit import refuse_other_store
from cpsae.stages.load import load
from cpsae.store import Store, open_store
from cpsae.store.bound import norm_bound
from cpsae.tensors import TORCH_DTYPES
from cpsae.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cpsae.evaluation.through_model import ThroughModelResult


@dataclass(frozen=True)
class Evaluation:
    """What a run was found to be worth."""

    path: Path
    """The file that says so."""
    content: dict[str, Any]
    """What that file holds."""
    metrics: dict[str, float | int | None]
    """The flat figures under our own names, without their intervals."""


@dataclass(frozen=True)
class ModelChoice:
    """Which language model, and how it runs."""

    name: str
    """A hub name, a local folder, a .gguf file, or `store` for the one that the store names."""
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str | None = None
    """What it computes in; None for what the store's rows were computed in."""


def evaluate(
    run: str | Path,
    store: str | Path | None = None,
    *,
    model: str | None = None,
    contexts: int | None = None,
    step: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Evaluation:
    """Metrics of a finished run on the held-out rows of `store` (default: the run's own), or of its
    first `contexts`, which become the run's evaluation.json; of any run after update `step`, whose
    checkpoint is there: evaluation-step-NNNNNN.json.

    With `model` (a hub name at `revision`, a folder, a .gguf file, or `store` for the one that the
    store names) also what reconstructions do to that model, which computes in `dtype` (default: as
    it did for the store).

    The run's recorded bound of norms holds for its own store; for another one, the same rule
    (`max_norm` times a median) on that store's rows. Raises a CpsaeError where there is no such run
    or store or model, nothing is held out, the model is not the store's, or another store lies
    where the run's own one did.
    """
    choice = _choice(model, revision, trust_remote_code, dtype)
    folder = RunFolder(run)
    config = folder.read_config()
    place = choose_device(device)
    sae = load(folder.path, place, step=step)
    try:
        path, identity = config["store"]["path"], config["store"]["identity"]
        max_norm = config["settings"]["max_norm"]
    except (KeyError, TypeError):
        raise RunError(
            f"{folder.config}: names no store; restore it from a copy, or fit the run again"
        ) from None
    if store is None and not Path(path).is_dir():
        raise StoreError(f"{path}: the run's store is not there any more; name it with --store")
    opened = open_store(store or path, allow_partial=True)
    if store is None:
        refuse_other_store(opened, identity)
    bound = _bound(folder, config, opened, identity, max_norm)
    through, special = None, None
    if choice is not None:
        through, special = _through(choice, sae, opened, place, contexts, on_event)
    results = measure([sae], opened, bound, on_event, contexts=contexts, special=special)
    assert results is not None, "nobody asked to stop"
    [result] = results
    if through is not None:
        result = _joined(result, through)
    written = folder.write_evaluation(result.as_json(), opened, step)
    return Evaluation(*written, result.metrics)


def _choice(
    model: str | None, revision: str | None, trust_remote_code: bool, dtype: str | None
) -> ModelChoice | None:
    """Raises SettingsError for what cannot apply."""
    if model is not None:
        if dtype is not None and dtype not in TORCH_DTYPES:
            raise SettingsError(f"--dtype: '{dtype}' is not one of {', '.join(TORCH_DTYPES)}")
        return ModelChoice(model, revision, trust_remote_code, dtype)
    given = {"--revision": revision, "--trust-remote-code": trust_remote_code, "--dtype": dtype}
    for flag, value in given.items():
        if value:
            raise SettingsError(f"{flag}: is of the language model; give --model too")
    return None


def _through(
    choice: ModelChoice,
    sae: SparseAutoencoder,
    store: Store,
    device: torch.device,
    contexts: int | None,
    on_event: OnEvent,
) -> "tuple[ThroughModelResult, SpecialTokens]":
    # where no model is asked for, nothing of transformers is imported
    from cpsae.evaluation.store_model import find_model, load_model, special_tokens
    from cpsae.evaluation.through_model import measure_through

    source = find_model(store, choice.name, choice.revision, choice.trust_remote_code)
    dtype = TORCH_DTYPES[choice.dtype] if choice.dtype else None
    model = load_model(store, source, device, dtype)
    special = special_tokens(source, model, on_event)
    return measure_through(sae, store, model, special, contexts, on_event), special


def _joined(result: HeldOutResult, through: "ThroughModelResult") -> HeldOutResult:
    return replace(
        result,
        metrics={**result.metrics, **through.metrics},
        intervals={**result.intervals, **through.intervals},
        saebench={**result.saebench, **through.saebench},
        basis={**result.basis, **through.basis},
    )


def _bound(
    run: RunFolder, config: dict[str, Any], store: Store, identity: str, max_norm: float
) -> float:
    if store.identity == identity and "facts" in config:
        return run.facts().norm_bound
    return float(norm_bound(store.training, max_norm))
