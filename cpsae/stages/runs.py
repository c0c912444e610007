"""Runs that are trained together on one feed: their folders and locks, facts, training, evaluation,
files. A fit is one such run, a sweep several."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from cpsae.device import threads_put_back
from cpsae.durable import writer_lock
from cpsae.errors import NonFiniteError
from cpsae.evaluation.held_out import HeldOutResult, measure, nothing_held_out
from cpsae.events import Note, OnEvent, ignore
from cpsae.json_files import write_object
from cpsae.sae.autoencoder import SparseAutoencoder, load
from cpsae.software import software_versions
from cpsae.store import Store
from cpsae.store.growing import StoppedWaiting
from cpsae.store.integrity import damaged
from cpsae.store.provenance import provenance
from cpsae.training.facts import Facts, find_facts
from cpsae.training.feed import ActivationFeed
from cpsae.training.longer import Longer, begin_longer, find_longer
from cpsae.training.loop import Loop, Stopped
from cpsae.training.machine import keep_bits, machine_of
from cpsae.training.member import Member, refuse_unfit
from cpsae.training.memory_plan import refuse_large
from cpsae.training.run_folder import RunFolder
from cpsae.training.settings import FitSettings
from cpsae.training.start import find_start, start_key

_MANY_SKIPPED = 0.1


@dataclass(frozen=True, eq=False)
class Job:
    """A run that is asked for. Each is itself alone: a kind's settings need not be hashable."""

    run: RunFolder
    settings: FitSettings
    preset: str
    stretch: bool = False
    """Whether a finished run may be given more steps where that does not make it what a run of
    that length is."""

    def more_steps(self, store: Store) -> Longer | None:
        """Of a run that was begun: what it is asked for beyond its end. Raises
        DifferentSettingsError, listing each, where it was begun with other settings."""
        longer = find_longer(self.run, self.settings, store, self.stretch)
        if longer is None:
            self.run.refuse_other(self.settings, store)
        return longer


@dataclass(frozen=True)
class Trained:
    """What came of several jobs."""

    summaries: dict[Job, dict[str, Any]]
    """What summary.json says, of those that were finished."""
    failed: dict[Job, NonFiniteError] = field(default_factory=dict)
    """Those that were given up."""


def check(job: Job, store: Store, device: torch.device) -> None:
    """Raises SettingsError, before anything is written, where the settings do not fit the store."""
    facts = find_facts(store.training, job.settings, device)
    refuse_large([job.settings], store.d, device)
    refuse_unfit(job.settings, facts.schedule, store.d)


def store_as_first_seen(jobs: Sequence[Job], store: Store) -> Store:
    """The store as runs first saw it: no chunk that came later. Raises DamagedStoreError where one
    is gone, for without it they would go on with other rows."""
    seen = [job.run.read_config()["store"] for job in jobs if job.run.started]
    if not seen:
        return store
    keys = seen[0].get("chunks") or [chunk.key for chunk in store.manifest.chunks()]
    missing = sorted(set(keys) - {chunk.key for chunk in store.chunks})
    if missing:
        raise damaged(store.bucket, {"missing, but this run was begun with it": missing})
    return store.only(keys)


def train(
    store: Store,
    jobs: Sequence[Job],
    device: torch.device,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> Trained | Stopped:
    """Train all jobs over one feed, continuing those that were begun, and evaluate them; `Stopped`
    where `should_stop` said so, with everything so far on the disk.

    Their feed settings and numbers of steps must be equal. Raises a CpsaeError where the user has
    to do something; checkpoints stay.
    """
    with ExitStack() as stack:
        for job in jobs:
            heard = on_event if len(jobs) == 1 else ignore  # of a sweep, its own lock warns
            stack.enter_context(writer_lock(job.run.path, "run", heard))
        stack.enter_context(threads_put_back())
        for job in jobs:
            job.run.tidy()
            if job.run.started:  # again under the lock: somebody may have begun it since
                longer = job.more_steps(store)
                if longer is not None:
                    on_event(Note(begin_longer(longer)))
        begun = [job.run.read_config() for job in jobs if job.run.started]
        if begun:
            keep_bits(begun[0].get("machine", {}), device, on_event)
        plan = refuse_large([job.settings for job in jobs], store.d, device)
        on_event(Note(f"memory of the training: about {plan}", "detail"))
        facts = _facts(store, jobs, device, on_event)
        loop, members = _loop(store, jobs, facts, device, on_event)
        _note_unmeasurable(store, on_event)
        stopped = loop.run(should_stop)
        if stopped is not None:
            return stopped
        given_up = {id(member): error for member, error in loop.failed}
        failed = {
            job: given_up[id(member)]
            for job, member in zip(jobs, members, strict=True)
            if id(member) in given_up
        }
        done = {job: m for job, m in zip(jobs, members, strict=True) if job not in failed}
        try:
            summaries = _finish(store, done, facts, device, on_event, should_stop)
        except StoppedWaiting:
            return Stopped(loop.steps, loop.steps)
        if isinstance(summaries, Stopped):
            return summaries
        return Trained(summaries, failed)


def _facts(
    store: Store, jobs: Sequence[Job], device: torch.device, on_event: OnEvent
) -> dict[Job, Facts]:
    """Of each run: read where they were recorded, else found and recorded."""
    facts: dict[Job, Facts] = {}
    starts: dict[str, dict[str, torch.Tensor]] = {}
    for job in jobs:
        if job.run.started:
            facts[job] = job.run.facts()
            continue
        found = facts[job] = find_facts(store.training, job.settings, device)
        key = start_key(found, job.settings)
        if key not in starts:
            starts[key] = find_start(store.training, found, job.settings)
        job.run.write_start(starts[key])
        job.run.write_config(_config(store, job, found, device))
    _note_facts(facts[jobs[0]], on_event)
    return facts


def _note_facts(facts: Facts, on_event: OnEvent) -> None:
    schedule = facts.schedule
    if schedule.scale < 1:
        on_event(
            Note(
                f"{schedule.steps} steps are fewer than the paper's: warm-up is scaled to "
                f"{schedule.warmup_steps} steps, and a kind's own schedules by "
                f"{schedule.scale:.3g} (scale_schedule)"
            )
        )
    if facts.skipped_share > _MANY_SKIPPED:
        on_event(
            Note(
                f"{facts.skipped_share:.0%} of the rows are skipped: their norm is over "
                f"{facts.norm_bound:.4g}, max_norm times the median; --set max_norm=0 keeps all",
                "warning",
            )
        )


def _note_unmeasurable(store: Store, on_event: OnEvent) -> None:
    if not _measurable(store):
        on_event(
            Note(
                f"{store.path} holds no evaluation rows yet: the summary will have no metrics; "
                "once it does, `cpsae evaluate` gives them",
                "warning",
            )
        )


def _loop(
    store: Store,
    jobs: Sequence[Job],
    facts: dict[Job, Facts],
    device: torch.device,
    on_event: OnEvent,
) -> tuple[Loop, list[Member]]:
    settings = jobs[0].settings
    feed = ActivationFeed(
        store.training,
        settings.batch_size,
        seed=settings.order_seed,
        norm_bound=facts[jobs[0]].norm_bound,
        window_chunks=settings.window_chunks,
        pin_memory=device.type == "cuda",
    )
    members = [Member(job.run, job.settings, facts[job], store.d, device, on_event) for job in jobs]
    for job in jobs:
        on_event(Note(f"run folder: {job.run.path}"))
    return Loop(feed, members, on_event), members


def _finish(
    store: Store,
    done: dict[Job, Member],
    facts: dict[Job, Facts],
    device: torch.device,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> dict[Job, dict[str, Any]] | Stopped:
    """Save and evaluate what was trained; the summary, written last, marks a run complete."""
    hook = provenance(store.manifest, store.identity)
    for job, member in done.items():
        member.trainable.autoencoder(hook).save(job.run.path)
    saes = [load(job.run.path, device) for job in done]
    results = _measured(store, saes, facts[next(iter(done))], on_event, should_stop) if done else []
    if results is None:
        steps = next(iter(done.values())).schedule.steps
        return Stopped(steps, steps)
    skipped = store.training.rows_over(facts[next(iter(done))].norm_bound) if done else 0
    summaries = {}
    for (job, member), result, sae in zip(done.items(), results, saes, strict=True):
        summaries[job] = {
            **result.metrics,
            "steps": member.schedule.steps,
            "rows": member.schedule.steps * job.settings.batch_size,
            "skipped_rows": skipped,
            "n_enabled": sae.n_enabled,
            "flops": member.trainable.flops(job.settings.batch_size),
            "initial_loss": member.trainable.initial_loss(),
        }
        job.run.write_evaluation(result.as_json(), store)
        write_object(job.run.summary, summaries[job])
    return summaries


def _measured(
    store: Store,
    saes: Sequence[SparseAutoencoder],
    facts: Facts,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> list[HeldOutResult] | None:
    if not _measurable(store):
        return [nothing_held_out(sae) for sae in saes]
    return measure(saes, store, facts.norm_bound, on_event, should_stop)


def _measurable(store: Store) -> bool:
    return store.evaluation is not None and bool(store.evaluation.chunks)


def _config(store: Store, job: Job, facts: Facts, device: torch.device) -> dict[str, Any]:
    partial = len(store.chunks) < len(store.manifest.chunks())
    return {
        "preset": job.preset,
        "settings": job.settings.model_dump(mode="json"),
        "facts": facts.as_json(),
        "store": {
            "path": str(store.path.absolute()),
            "identity": store.identity,
            "manifest": store.manifest.model_dump(mode="json"),
            "chunks": [chunk.key for chunk in store.chunks] if partial else None,
        },
        "machine": machine_of(device),
        "software": software_versions(),
    }
