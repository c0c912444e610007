"""Stage 2 as one calls it: one autoencoder, trained and evaluated in a run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsae.device import choose_device
from cpsae.durable import set_aside
from cpsae.errors import SettingsError, StoreError
from cpsae.events import Note, OnEvent, ignore
from cpsae.stages.opening import open_to_train, stopped_where_it_waits
from cpsae.stages.runs import (
    Job,
    check,
    store_as_first_seen,
    train,
)
from cpsae.store import Store
from cpsae.training.loop import Stopped
from cpsae.training.run_folder import RunFolder, run_name
from cpsae.training.settings import FitSettings
from cpsae.workers import Worker


@dataclass(frozen=True)
class FitResult:
    """A finished run: its folder and what summary.json says."""

    path: Path
    summary: dict[str, Any]


@stopped_where_it_waits
def fit(
    store: str | Path,
    settings: FitSettings | None = None,
    *,
    out: str | Path | None = None,
    preset: str = "paper",
    fresh: bool = False,
    allow_partial: bool = False,
    follow: bool = False,
    stretch: bool = False,
    store_identity: str | None = None,
    on_event: OnEvent = ignore,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult | Stopped:
    """Train on a store and evaluate on its held-out part, in `out` (by default
    ./runs/<preset>-<8 hex of settings and store identity>). Continues a run that was begun there,
    or with `fresh` renames it aside first; `Stopped` where `should_stop` said so. A finished run
    in `out` is given more steps, where it is then what a run of that length is, or with `stretch`
    all the same. With `follow` the store may still be growing: rows that are not there yet are
    waited for, and the run is the one that the complete store gives.

    Raises a CpsaeError where the user has to do something (also where `store_identity` is given
    and is not the store's); checkpoints stay.
    """
    settings = settings or FitSettings()
    refuse_several_processes()
    opened = open_to_train(store, allow_partial, follow, should_stop, on_event)
    refuse_other_store(opened, store_identity)
    run = RunFolder(out or Path("runs") / run_name(preset, settings, opened))
    run.refuse_foreign()
    refuse_idle_stretch([run], stretch, fresh)
    job = Job(run, settings, preset, stretch)
    if run.started and not fresh:
        longer = job.more_steps(opened)
        note_unused(run, opened, on_event)
        if run.complete and longer is None:
            on_event(Note(f"{run.path} is complete"))
            return FitResult(run.path, run.read_summary())
        opened = store_as_first_seen([job], opened)
    device = choose_device(settings.device)
    if fresh or not run.started:
        check(job, opened, device)
    if run.started and fresh:
        on_event(Note(f"{run.path} is kept as {set_aside(run.path, 'run')}"))
    trained = train(opened, [job], device, on_event, should_stop)
    if isinstance(trained, Stopped):
        return trained
    return FitResult(run.path, trained.summaries[job])


def refuse_several_processes() -> None:
    """Raises SettingsError under torchrun."""
    if Worker.from_environment().count > 1:
        raise SettingsError("fit runs in one process so far; start it without torchrun")


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
