"""Runs that are asked for, and how they begin: what their folders, their store and the leader of
several processes say of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cpsae.errors import StoreError
from cpsae.events import Note, OnEvent
from cpsae.sae.group import Group
from cpsae.software import software_versions
from cpsae.store import Store
from cpsae.store.integrity import damaged
from cpsae.training.facts import Facts, find_facts
from cpsae.training.initial import Initial, begun_from, refuse_unfit_initial, start_from
from cpsae.training.longer import Longer, begin_longer, find_longer
from cpsae.training.machine import keep_bits, machine_of
from cpsae.training.member import refuse_unfit
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
    init: Initial | None = None
    """The run that it goes on from."""

    @property
    def fingerprint(self) -> str | None:
        """Of that."""
        return self.init.fingerprint if self.init else None

    def facts(self, store: Store, device: torch.device) -> Facts:
        """Of the run, if it begins now. Raises SettingsError where its settings do not fit."""
        if self.init is None:
            return find_facts(store.training, self.settings, device)
        refuse_unfit_initial(self.init, self.settings, store.d)
        found = find_facts(store.training, self.settings, device)
        return begun_from(self.init, self.settings, found)

    def more_steps(self, store: Store) -> Longer | None:
        """Of a run that was begun: what it is asked for beyond its end. Raises
        DifferentSettingsError, listing each, where it was begun with other settings."""
        longer = find_longer(self.run, self.settings, store, self.stretch, self.fingerprint)
        if longer is None:
            self.run.refuse_other(self.settings, store, self.fingerprint)
        return longer


def check(job: Job, store: Store, device: torch.device, group: Group) -> None:
    """Raises SettingsError, before anything is written, where the settings do not fit the store,
    the group or the memory of one of its processes."""
    facts = job.facts(store, device)
    refuse_large([job.settings], store.d, device, group.size)
    refuse_unfit(job.settings, facts.schedule, store.d, group)


def store_as_first_seen(jobs: Sequence[Job], store: Store) -> Store:
    """The store as runs first saw it: no chunk that came later. Raises DamagedStoreError where one
    is gone, for without it they would go on with other rows."""
    seen = [job.run.read_config()["store"] for job in jobs if job.run.started]
    if not seen:
        return store
    return _only(store, seen[0].get("chunks") or [chunk.key for chunk in store.manifest.chunks()])


def _only(store: Store, keys: Sequence[str]) -> Store:
    missing = sorted(set(keys) - {chunk.key for chunk in store.chunks})
    if missing:
        raise damaged(store.bucket, {"missing, but this run was begun with it": missing})
    return store.only(keys)


def begin(
    store: Store, jobs: Sequence[Job], device: torch.device, on_event: OnEvent, group: Group
) -> dict[Job, Facts]:
    """Record the runs, and what becomes of those that were begun; the facts of each."""
    plan = refuse_large([job.settings for job in jobs], store.d, device, group.size)
    on_event(Note(f"memory of the training: about {plan}", "detail"))
    if group.size == 1 and jobs[0].settings.split == "features":
        text = "--split features: one process holds the whole dictionary; start several by torchrun"
        on_event(Note(text))
    for job in jobs:
        job.run.tidy()
        if job.run.started:  # again under the lock: somebody may have begun it since
            longer = job.more_steps(store)
            if longer is not None:
                on_event(Note(begin_longer(longer)))
    begun = [job.run.read_config() for job in jobs if job.run.started]
    if begun:
        keep_bits(begun[0].get("machine", {}), device, on_event, group)
    return _facts(store, jobs, device, on_event, group)


def as_the_leader(
    store: Store, jobs: Sequence[Job], facts: Mapping[Job, Facts], group: Group
) -> tuple[Store, dict[Job, Facts]]:
    """The store and the facts as the leader has them, and its number of threads. Raises StoreError
    where this process has another store."""
    found = [facts[job].as_json() for job in jobs] if group.is_leader else []
    keys = [chunk.key for chunk in store.chunks]
    said = group.told([store.identity, keys, torch.get_num_threads(), found])
    identity, keys, threads, found = said
    if identity != store.identity:
        raise StoreError(
            f"{store.path}: is another store here than that of process 0; give all processes a "
            "path at which they see the same store"
        )
    torch.set_num_threads(threads)
    told = map(Facts.from_json, found)
    return _only(store, keys), dict(zip(jobs, told, strict=True))


def _facts(
    store: Store, jobs: Sequence[Job], device: torch.device, on_event: OnEvent, group: Group
) -> dict[Job, Facts]:
    """Of each run: read where they were recorded, else found and recorded."""
    facts: dict[Job, Facts] = {}
    starts: dict[str, dict[str, torch.Tensor]] = {}
    for job in jobs:
        if job.run.started:
            facts[job] = job.run.facts()
            continue
        found = facts[job] = job.facts(store, device)
        config = _config(store, job, found, device, group)
        if job.init is not None:
            start = start_from(job.init, job.settings, found)
        else:
            key = start_key(found, job.settings)
            if key not in starts:
                starts[key] = find_start(store.training, found, job.settings)
            start = starts[key]
        config["start_crc32c"] = job.run.write_start(start)
        job.run.write_config(config)
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


def _config(
    store: Store, job: Job, facts: Facts, device: torch.device, group: Group
) -> dict[str, Any]:
    partial = len(store.chunks) < len(store.manifest.chunks())
    init = job.init and {"path": str(job.init.path), "fingerprint": job.init.fingerprint}
    return {
        **({"init": init} if init else {}),
        "preset": job.preset,
        "settings": job.settings.model_dump(mode="json"),
        "facts": facts.as_json(),
        "store": {
            "path": str(store.path.absolute()),
            "identity": store.identity,
            "manifest": store.manifest.model_dump(mode="json"),
            "chunks": [chunk.key for chunk in store.chunks] if partial else None,
        },
        "machine": machine_of(device, group),
        "software": software_versions(),
    }
