"""Making a damaged store whole, as one calls it: with its model, or as far as it goes without."""

import os
from dataclasses import dataclass, field

from cpsae.device import choose_device
from cpsae.events import OnEvent, ignore
from cpsae.extraction.recompute import Recomputed, model_of, recompute
from cpsae.models import find_source
from cpsae.store import verify_store
from cpsae.store.repair import remove_damaged, why_not
from cpsae.store.verify import Verification

OF_THE_STORE = "store"
"""What stands for the model that the store names; a folder of this name is ./store."""


@dataclass(frozen=True)
class Repair:
    """What was found damaged in a store, and what was done about it."""

    found: Verification
    removed: list[str] = field(default_factory=list)
    """Keys of damaged objects."""
    computed: list[Recomputed] | None = None
    """The damaged chunks again; None without a model."""
    hindrance: str | None = None
    """Why it cannot be repaired, where it was only looked at."""


def inspect(path: str | os.PathLike[str], on_event: OnEvent = ignore) -> Repair:
    """Look at every object, and touch nothing. Raises StoreError where there is no store."""
    found = verify_store(path, on_event)
    keys = [problem.key for problem in found.problems]
    return Repair(found, hindrance=why_not(path, keys) if keys else None)


def repair(
    path: str | os.PathLike[str],
    model: str | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Repair:
    """Look at every object and remove the damaged ones, so that an extraction makes them; with a
    model (a name, a folder, a .gguf file; `store`: the one that the store names) compute them
    here and now.

    Raises StoreError where it cannot be repaired; ModelError where the model is not at hand or
    another one: then nothing was removed.
    """
    if model is not None:  # before everything is read
        record = model_of(path)
        if model == OF_THE_STORE:
            model, revision = record.id, revision or record.revision
        source = find_source(model, revision, trust_remote_code)
    found = verify_store(path, on_event)
    keys = [problem.key for problem in found.problems]
    if not keys:
        return Repair(found, computed=None if model is None else [])
    if model is None:
        return Repair(found, removed=remove_damaged(path, keys))
    computed = recompute(path, keys, source, choose_device(device), on_event)
    return Repair(found, keys, computed)
