"""Stage 2 as one calls it: the training and its evaluation, in one locked run folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpsae.config import FitSettings
from cpsae.device import choose_device
from cpsae.durable import set_aside, writer_lock
from cpsae.errors import SettingsError
from cpsae.evaluation.held_out import evaluate_held_out, nothing_held_out
from cpsae.events import Note, OnEvent, ignore
from cpsae.sae.autoencoder import load
from cpsae.software import software_versions
from cpsae.stages.evaluate import write_evaluation
from cpsae.store import Store, open_store
from cpsae.store.reader import damaged
from cpsae.training.begin import refuse_unfit
from cpsae.training.fit import Fit, Stopped, machine_of
from cpsae.training.run_folder import RunFolder, read_json, run_name, write_json
from cpsae.workers import Worker


@dataclass(frozen=True)
class FitResult:
    """A finished run: its folder and what summary.json says."""

    path: Path
    summary: dict[str, Any]


def fit(
    store: str | Path,
    settings: FitSettings | None = None,
    *,
    out: str | Path | None = None,
    preset: str = "paper",
    fresh: bool = False,
    allow_partial: bool = False,
    on_event: OnEvent = ignore,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult | Stopped:
    """Stage 2 and its evaluation on the held-out part, in `out` (by default
    ./runs/<preset>-<8 hex of settings and store identity>). Continues a run that was begun there,
    or with `fresh` renames it aside first; `Stopped` where `should_stop` said so.

    Raises a CpsaeError where the user has to do something; checkpoints stay.
    """
    settings = settings or FitSettings()
    if Worker.from_environment().count > 1:
        raise SettingsError("fit runs in one process so far; start it without torchrun")
    opened = open_store(store, allow_partial)
    run = RunFolder(out or Path("runs") / run_name(preset, settings, opened))
    run.refuse_foreign()
    if run.begun and not fresh:
        run.refuse_other(settings, opened)
        _note_unused(run, opened, on_event)
        if run.complete:
            on_event(Note(f"{run.path} is complete"))
            return FitResult(run.path, read_json(run.summary))
        opened = _as_begun_with(run, opened)
    device = choose_device(settings.device)
    refuse_unfit(opened.training, settings)
    if run.begun and fresh:
        on_event(Note(f"{run.path} is kept as {set_aside(run.path, 'run')}"))
    with writer_lock(run.path, "run"), _torch_left_as_it_was():
        return _fit_locked(run, opened, settings, preset, device, on_event, should_stop)


def _note_unused(run: RunFolder, store: Store, on_event: OnEvent) -> None:
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


def _as_begun_with(run: RunFolder, store: Store) -> Store:
    """The store as the run first saw it: no chunk that came later. Raises DamagedStoreError where
    one is gone, for without it the run would go on with other rows."""
    keys = run.read_config()["store"].get("chunks")
    if keys is None:
        keys = [chunk.key for chunk in store.manifest.chunks()]
    missing = sorted(set(keys) - {chunk.key for chunk in store.chunks})
    if missing:
        raise damaged(store.path, {"missing, but this run was begun with it": missing})
    return store.only(keys)


@contextmanager
def _torch_left_as_it_was() -> Iterator[None]:
    """Put back the thread count and the random state, which a continued run sets for itself."""
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(random_state)


def _fit_locked(
    run: RunFolder,
    store: Store,
    settings: FitSettings,
    preset: str,
    device: torch.device,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> FitResult | Stopped:
    run.tidy()
    if run.begun:  # again under the lock: somebody may have begun it since
        run.refuse_other(settings, store)
    job = Fit(run, store, settings, device, on_event)
    if not run.begun:
        run.write_config(_config(store, settings, preset, job))
    on_event(Note(f"run folder: {run.path}"))
    measurable = store.evaluation is not None and bool(store.evaluation.chunks)
    if not measurable:
        on_event(
            Note(
                f"{store.path} holds no evaluation rows yet: the summary will have no metrics; "
                "once it does, `cpsae evaluate` gives them",
                "warning",
            )
        )
    stopped = job.train(should_stop)
    if stopped is not None:
        return stopped
    sae = load(run.path, device)
    result = (
        evaluate_held_out(sae, store, settings.max_norm, on_event)
        if measurable
        else nothing_held_out(sae)
    )
    summary = {
        **result.metrics,
        "steps": job.schedule.steps,
        "rows": job.schedule.steps * settings.batch_size,
        "skipped_rows": store.training.rows_over(job.feed.norm_bound),
        "n_enabled": sae.n_enabled,
        "initial_loss": job.state.initial_loss(),
    }
    write_evaluation(run, result, store)
    write_json(run.summary, summary)
    return FitResult(run.path, summary)


def _config(store: Store, settings: FitSettings, preset: str, job: Fit) -> dict[str, Any]:
    everything = store.manifest.chunks()
    partial = len(store.chunks) < len(everything)
    return {
        "preset": preset,
        "settings": settings.model_dump(mode="json"),
        "schedule": job.schedule.as_json(),
        "store": {
            "path": str(store.path),
            "identity": store.identity,
            "manifest": store.manifest.model_dump(mode="json"),
            "chunks": [chunk.key for chunk in store.chunks] if partial else None,
        },
        "machine": machine_of(job.device, job.precision),
        "software": software_versions(),
    }
