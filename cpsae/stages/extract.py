"""Stage 1 as one calls it: from text and a language model to a store of activations, or several.

The tokens are settled first and kept in the store; from then on every chunk is a pure function of
(tokens, model, dtype), so continuing is computing the chunks that are missing, on any worker.
"""

import time
from dataclasses import dataclass

from cpsae.config import ExtractSettings
from cpsae.device import threads_put_back
from cpsae.errors import SettingsError
from cpsae.events import Note, OnEvent, ignore
from cpsae.extraction import lead, work
from cpsae.extraction.plan import Plan, Target, find_targets, make_plan, place_of
from cpsae.extraction.provenance import is_model_known
from cpsae.store.origin import read_provenance
from cpsae.store.reader import open_bucket
from cpsae.urls import Place
from cpsae.workers import Worker


@dataclass(frozen=True)
class Extraction:
    """What an extraction came to; rows count the training part of one site."""

    path: Place
    """The store, or the folder of stores."""
    vectors: int
    evaluation_vectors: int
    d: int
    computed_chunks: int
    """By this worker, in this call; 0 where all was complete already. Of several sites, those of
    the same contexts count once."""
    seconds: float
    stores: list[Place]
    """One a site."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        each = "" if len(self.stores) == 1 else f" in each of {len(self.stores)} stores"
        return (
            f"Extraction({self.path}: {self.vectors:,} vectors and {self.evaluation_vectors:,} "
            f"held out{each}, d = {self.d})"
        )


def extract(
    settings: ExtractSettings,
    on_event: OnEvent = ignore,
    worker: Worker | None = None,
    *,
    fresh: bool = False,
) -> Extraction:
    """Fill the store that `settings` describe, from wherever an earlier call got to, or with
    `fresh` from nothing, once all that can be checked before is found right and the old store is
    renamed aside. Several sites fill a folder of stores, in one pass over the model.

    Raises a CpsaeError, with everything committed before in place, for any condition that the
    user can mend; see docs/guide.md for the list.
    """
    worker = worker or Worker.from_environment()
    if fresh and worker.count > 1:
        raise SettingsError("--fresh: cannot be used with several workers; move the store aside")
    began = time.monotonic()
    targets = find_targets(settings, fresh)
    if _all_complete(settings, targets, worker):
        on_event(Note(f"{place_of(settings)} is complete"))
        return _result(settings, targets, 0, began)
    plan = make_plan(settings, targets, worker, on_event)
    with threads_put_back():
        computed = _lead(plan, fresh, on_event) if worker.is_leader else _follow(plan, on_event)
    return _result(settings, targets, computed, began)


def _lead(plan: Plan, fresh: bool, on_event: OnEvent) -> int:
    if fresh:
        lead.set_old_aside(plan.targets, on_event)
    with lead.locked(plan, on_event):
        computed = work.fill(plan, lead.prepare(plan, on_event), on_event)
        lead.complete(plan, on_event)
    return computed


def _follow(plan: Plan, on_event: OnEvent) -> int:
    work.wait_for_tokens(plan, on_event)
    with plan.targets[0].home.fellow():
        return work.fill(plan, None, on_event)


def _all_complete(settings: ExtractSettings, targets: list[Target], worker: Worker) -> bool:
    """Whether there is nothing to do, as the stores, and the model's name and files, say."""
    for target in targets:
        if target.manifest is not None:
            target.refuse_other({}, worker)
    for target in targets:
        model = target.manifest and target.manifest.model
        if not (target.manifest and target.manifest.complete and model):
            return False
        if model.id != settings.model or settings.revision not in (None, model.revision):
            return False
        if not is_model_known(read_provenance(target.home), settings):
            return False
    for target in targets:
        open_bucket(target.home)  # lists every file: the mark alone does not show one that is gone
        target.home.settle()  # who set the mark may have been killed before it was durable
    return True


def _result(
    settings: ExtractSettings, targets: list[Target], computed: int, began: float
) -> Extraction:
    manifest = targets[0].known
    return Extraction(
        place_of(settings),
        manifest.vectors,
        manifest.evaluation_vectors,
        manifest.d,
        computed,
        time.monotonic() - began,
        [target.path for target in targets],
    )
