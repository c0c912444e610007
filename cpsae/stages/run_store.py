"""The store that a run is measured on, opened."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsae.errors import RunError, StoreError
from cpsae.events import Note, OnEvent
from cpsae.stages.fit import refuse_other_store
from cpsae.store import Store, open_store
from cpsae.store.bound import norm_bound
from cpsae.training.recorded import Recorded
from cpsae.training.run_folder import RunFolder
from cpsae.urls import Place, store_place


@dataclass(frozen=True)
class RunOnStore:
    """A run, the store that it is measured on, and the bound of that store's rows."""

    folder: RunFolder
    store: Store
    bound: float


def run_on_store(
    folder: RunFolder,
    store: str | os.PathLike[str] | None,
    opened: dict[Place, Store],
    on_event: OnEvent,
) -> RunOnStore:
    """A run with `store`, by default its own. opened: those that are open already, to which this
    one is added. Raises RunError where the run names none; StoreError where it is gone, or another
    one lies in its place."""
    config = folder.read_config()
    known = Recorded.of(config, folder.path)
    path = store or known.store_path
    if path is None:
        raise RunError(
            f"{folder.path}: was converted, and is of no store; name one of its model and layer "
            "with --store"
        )
    place = store_place(path, "store", StoreError)
    if store is None and isinstance(place, Path) and not place.is_dir():
        raise StoreError(f"{path}: the run's store is not there any more; name it with --store")
    if place not in opened:
        opened[place] = open_store(place, allow_partial=True)
    if store is None:
        refuse_other_store(opened[place], known.store_identity)
    other = known.other_place(opened[place].manifest)
    if other is not None:
        on_event(Note(f"{folder.path}: {other}", "warning"))
    return RunOnStore(folder, opened[place], _bound(folder, config, opened[place], known))


def _bound(run: RunFolder, config: dict[str, Any], store: Store, known: Recorded) -> float:
    if store.identity == known.store_identity and "facts" in config:
        return run.facts().norm_bound
    return float(norm_bound(store.training, known.max_norm))
