"""A finished run measured on held-out rows, as one calls it."""

from pathlib import Path

from cpsae.device import choose_device
from cpsae.evaluation.held_out import HeldOutResult, evaluate_held_out
from cpsae.events import OnEvent, ignore
from cpsae.sae.autoencoder import load
from cpsae.store import Store, open_store
from cpsae.training.run_folder import RunFolder, write_json


def evaluate(
    run: str | Path, store: str | Path | None = None, *, on_event: OnEvent = ignore
) -> HeldOutResult:
    """Metrics of a finished run on the held-out rows of `store` (default: the run's own), which
    become the run's evaluation.json.

    Raises a CpsaeError where there is no such run or store, or nothing is held out.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    sae = load(folder.path, choose_device("auto"))
    opened = open_store(store or config["store"]["path"], allow_partial=True)
    result = evaluate_held_out(sae, opened, config["settings"]["max_norm"], on_event)
    write_evaluation(folder, result, opened)
    return result


def write_evaluation(run: RunFolder, result: HeldOutResult, store: Store) -> None:
    """Write evaluation.json, and which store it is of."""
    write_json(run.evaluation, {**result.as_json(), "store_identity": store.identity})
