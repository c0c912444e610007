"""A finished run measured on held-out rows, as one calls it."""

from pathlib import Path
from typing import Any

from cpsae.device import choose_device
from cpsae.errors import RunError, StoreError
from cpsae.evaluation.held_out import HeldOutResult, measure
from cpsae.events import OnEvent, ignore
from cpsae.stages.fit import refuse_other_store
from cpsae.stages.load import load
from cpsae.store import Store, open_store
from cpsae.store.bound import norm_bound
from cpsae.training.run_folder import RunFolder


def evaluate(
    run: str | Path,
    store: str | Path | None = None,
    *,
    step: int | None = None,
    on_event: OnEvent = ignore,
) -> HeldOutResult:
    """Metrics of a finished run on the held-out rows of `store` (default: the run's own), which
    become the run's evaluation.json; of any run after update `step`, whose checkpoint is there:
    evaluation-step-NNNNNN.json.

    The run's recorded bound of norms holds for its own store; for another one, the same rule
    (`max_norm` times a median) on that store's rows. Raises a CpsaeError where there is no such run
    or store, nothing is held out, or another store lies where the run's own one did.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    sae = load(folder.path, choose_device("auto"), step=step)
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
    results = measure([sae], opened, bound, on_event)
    assert results is not None, "nobody asked to stop"
    [result] = results
    folder.write_evaluation(result.as_json(), opened, step)
    return result


def _bound(
    run: RunFolder, config: dict[str, Any], store: Store, identity: str, max_norm: float
) -> float:
    if store.identity == identity and "facts" in config:
        return run.facts().norm_bound
    return float(norm_bound(store.training, max_norm))
