"""Stage 2 as one calls it: one autoencoder, trained and evaluated in a run folder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpsae.device import choose_device
from cpsae.durable import sync_name
from cpsae.errors import SettingsError, StoreError
from cpsae.events import Note, OnEvent, ignore
from cpsae.locks import set_aside
from cpsae.sae.group import Group
from cpsae.stages.figures import in_words
from cpsae.stages.initial import find_initial
from cpsae.stages.jobs import Job, check, store_as_first_seen
from cpsae.stages.opening import open_to_train, refuse_to_follow, stopped_where_it_waits
from cpsae.stages.runs import train
from cpsae.store import Store
from cpsae.tracking.process import Tracking, shown_in, tracking
from cpsae.training.loop import Stopped
from cpsae.training.processes import joined
from cpsae.training.run_folder import RunFolder, run_name
from cpsae.training.settings import FitSettings
from cpsae.workers import Worker


@dataclass(frozen=True)
class FitResult:
    """A finished run: its folder and what summary.json says."""

    path: Path
    summary: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"FitResult({self.path}: {in_words(self.summary)})"


@stopped_where_it_waits
def fit(
    store: str | os.PathLike[str],
    settings: FitSettings | None = None,
    *,
    out: str | Path | None = None,
    init_run: str | Path | None = None,
    preset: str = "paper",
    fresh: bool = False,
    allow_partial: bool = False,
    follow: bool = False,
    stretch: bool = False,
    track: str | Sequence[str] = (),
    track_project: str | None = None,
    store_identity: str | None = None,
    on_event: OnEvent = ignore,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult | Stopped:
    """Train on a store and evaluate on its held-out part, in `out` (by default
    ./runs/<preset>-<8 hex of settings and store identity>). Continues a run that was begun there,
    or with `fresh` renames it aside first; `Stopped` where `should_stop` said so. A finished run
    in `out` is given more steps, where it is then what a run of that length is, or with `stretch`
    all the same. `track` names experiment trackers (cpsae.tracking.TRACKERS) that show the run, in
    `track_project`. With `follow` the store may still be growing: rows that are not there yet are
    waited for, and the run is the one that the complete store gives. With `init_run`, a finished
    run or a converted one of the same kind and shape, it begins with the weights of that.

    Started several times by torchrun, the processes share the batches or, where the settings'
    `split` says so, the features: the first one alone writes and reports, and all have its result.

    Raises a CpsaeError where the user has to do something (also where `store_identity` is given
    and is not the store's); checkpoints stay.
    """
    settings = settings or FitSettings()
    worker = Worker.from_environment()
    refuse_to_follow(worker, follow)
    shown = tracking(track, track_project) if worker.is_leader else Tracking()
    with joined(worker, settings.device, settings.batch_size, settings.split) as group:
        heard = on_event if group.is_leader else ignore
        opened = open_to_train(store, allow_partial, follow, should_stop, heard)
        refuse_other_store(opened, store_identity)
        begun = find_initial(init_run, None if out is None else RunFolder(out))
        name = run_name(preset, settings, opened, begun.fingerprint if begun else None)
        run = RunFolder(out or Path("runs") / name)
        job = Job(run, settings, preset, stretch, begun)
        complete = group.told(
            _summary_if_complete(job, opened, fresh, heard) if group.is_leader else None
        )
        device = choose_device(settings.device, worker.local_rank)
        if complete is None and group.is_leader:
            opened = _made_ready(job, opened, device, fresh, heard, group)
        with shown_in(shown, [run.path], heard) as trackers:
            if complete is None:
                trained = train(opened, [job], device, trackers.listen, should_stop, group)
                if isinstance(trained, Stopped):
                    return trained
                complete = trained.summaries[job]
            trackers.finished = True
        return FitResult(run.path, complete)


def _summary_if_complete(
    job: Job, store: Store, fresh: bool, on_event: OnEvent
) -> dict[str, Any] | None:
    """That of a run to which nothing is to be added."""
    run = job.run
    run.refuse_foreign()
    refuse_idle_stretch([run], job.stretch, fresh)
    if fresh or not run.started:
        return None
    longer = job.more_steps(store)
    note_unused(run, store, on_event)
    if longer is not None or not run.complete:
        return None
    sync_name(run.path)  # who wrote the summary may have been killed before it was durable
    on_event(Note(f"{run.path} is complete"))
    return run.read_summary()


def _made_ready(
    job: Job, store: Store, device: torch.device, fresh: bool, on_event: OnEvent, group: Group
) -> Store:
    """The store as the run sees it, once nothing is in its way."""
    run = job.run
    if run.started and not fresh:
        return store_as_first_seen([job], store)
    check(job, store, device, group)
    if run.started:
        on_event(Note(f"{run.path} is kept as {set_aside(run.path, 'run')}"))
    return store


def refuse_idle_stretch(runs: Sequence[RunFolder], stretch: bool, fresh: bool) -> None:
    """Raises SettingsError where nothing was begun that `stretch` could be about."""
    if stretch and (fresh or not any(run.started for run in runs)):
        raise SettingsError(
            "--stretch: is for more steps of a finished run; name that run with --out, without "
            "--fresh"
        )


def refuse_other_store(store: Store, identity: str | None) -> None:
    """Raises StoreError where a store is not the one that `identity` is of."""
    if identity is not None and store.identity != identity:
        raise StoreError(
            f"{store.path}: is not the store that the run was trained on, though it lies where "
            "that did; name it with --store to take it all the same"
        )


def note_unused(run: RunFolder, store: Store, on_event: OnEvent) -> None:
    """Say where the store has grown since: the run, even a complete one, knows less than it."""
    keys = run.read_config()["store"].get("chunks")
    if keys is not None and len(store.chunks) > len(keys):
        on_event(
            Note(
                f"{run.path} keeps to the {len(keys)} chunks that it was begun with, of the "
                f"store's {len(store.chunks)} by now; --fresh begins again with all",
                "warning",
            )
        )
