"""Runs that are trained together on one feed: their locks, training, evaluation, files. A fit is
one such run, a sweep several."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from cpsae.device import free_memory, threads_put_back
from cpsae.errors import NonFiniteError
from cpsae.evaluation.held_out import HeldOutResult, measure, nothing_held_out
from cpsae.events import Note, OnEvent, ignore
from cpsae.json_files import write_object
from cpsae.locks import writer_lock
from cpsae.memory import gigabytes
from cpsae.sae.autoencoder import SparseAutoencoder, load
from cpsae.sae.files import WEIGHTS
from cpsae.sae.group import ALONE, Group
from cpsae.stages.jobs import Job, as_the_leader, begin
from cpsae.store import Store
from cpsae.store.growing import StoppedWaiting
from cpsae.store.provenance import provenance
from cpsae.training.facts import Facts
from cpsae.training.feed import ActivationFeed
from cpsae.training.loop import Loop, Stopped
from cpsae.training.member import Member
from cpsae.training.memory_plan import plan_memory
from cpsae.training.resident import resident_rows

_WITH_LATENTS = 2
"""Times its weights that a dictionary takes while it is evaluated, about."""


@dataclass(frozen=True)
class Trained:
    """What came of several jobs."""

    summaries: dict[Job, dict[str, Any]]
    """What summary.json says, of those that were finished."""
    failed: dict[Job, NonFiniteError] = field(default_factory=dict)
    """Those that were given up."""


def train(
    store: Store,
    jobs: Sequence[Job],
    device: torch.device,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    group: Group = ALONE,
) -> Trained | Stopped:
    """Train all jobs over one feed, continuing those that were begun, and evaluate them; `Stopped`
    where `should_stop` said so, with everything so far on the disk. All processes of the group call
    this with the same jobs; the leader alone looks into their folders.

    Their feed settings and numbers of steps must be equal. Raises a CpsaeError where the user has
    to do something; checkpoints stay.
    """
    with ExitStack() as stack:
        stack.enter_context(threads_put_back())
        facts: dict[Job, Facts] = {}
        if group.is_leader:
            for job in jobs:
                heard = on_event if len(jobs) == 1 else ignore  # of a sweep, its own lock warns
                stack.enter_context(writer_lock(job.run.path, "run", heard))
            facts = begin(store, jobs, device, on_event, group)
        if group.size > 1:
            store, facts = as_the_leader(store, jobs, facts, group)
        loop, members = _loop(store, jobs, facts, device, on_event, group)
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
        hook = provenance(store.manifest, store.identity)
        for member in done.values():
            member.write_autoencoder(hook)
        found = None
        if group.is_leader:
            with suppress(StoppedWaiting):
                where = _to_evaluate(done, device, group, on_event)
                found = _finish(store, done, facts, where, on_event, should_stop)
        summaries = group.told(found if found is None else list(found.values()))
        if summaries is None:
            return Stopped(loop.steps, loop.steps)
        return Trained(dict(zip(done, summaries, strict=True)), failed)


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
    group: Group,
) -> tuple[Loop, list[Member]]:
    settings = jobs[0].settings
    plan = plan_memory([job.settings for job in jobs], store.d, device, processes=group.size)
    feed = ActivationFeed(
        store.training,
        settings.batch_size,
        seed=settings.order_seed,
        norm_bound=facts[jobs[0]].norm_bound,
        window_chunks=settings.window_chunks,
        share=group.share(settings.batch_size),
        pin_memory=device.type == "cuda",
        resident=resident_rows(store.training, device, plan.total, group.size, on_event),
    )
    members = [
        Member(job.run, job.settings, facts[job], store.d, device, on_event, group) for job in jobs
    ]
    for job in jobs:
        on_event(Note(f"run folder: {job.run.path}"))
    return Loop(feed, members, on_event, group), members


def _finish(
    store: Store,
    done: dict[Job, Member],
    facts: dict[Job, Facts],
    device: torch.device,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> dict[Job, dict[str, Any]] | None:
    """Evaluate what was trained and saved; the summary, written last, marks a run complete. None
    where `should_stop` said so."""
    saes = [load(job.run.path, device) for job in done]
    results = _measured(store, saes, facts[next(iter(done))], on_event, should_stop) if done else []
    if results is None:
        return None
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


def _to_evaluate(
    done: dict[Job, Member], device: torch.device, group: Group, on_event: OnEvent
) -> torch.device:
    """Where the whole autoencoders are: one that was split may not fit the device of a part."""
    free = free_memory(device)
    if not group.splits or device.type == "cpu" or free is None:
        return device
    weights = sum((job.run.path / WEIGHTS).stat().st_size for job in done)
    if _WITH_LATENTS * weights <= free.bytes:
        return device
    on_event(
        Note(
            f"evaluated on the CPU: the whole dictionary takes {gigabytes(weights)}, {device} has "
            f"{gigabytes(free.bytes)} free"
        )
    )
    return torch.device("cpu")


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
