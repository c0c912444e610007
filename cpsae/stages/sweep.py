"""Several autoencoders at once, as one calls it: the runs of a sweep over one feed."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cpsae.device import choose_device
from cpsae.durable import is_leftover
from cpsae.errors import NonFiniteError, RunError
from cpsae.events import Note, OnEvent, ignore
from cpsae.json_files import write_object
from cpsae.locks import set_aside, writer_lock
from cpsae.sae.group import Group
from cpsae.stages.figures import in_words
from cpsae.stages.fit import note_unused, refuse_idle_stretch, refuse_other_store
from cpsae.stages.initial import find_initial
from cpsae.stages.jobs import Job, check, store_as_first_seen
from cpsae.stages.opening import open_to_train, refuse_to_follow, stopped_where_it_waits
from cpsae.stages.runs import Trained, train
from cpsae.store import Store
from cpsae.tracking.process import Tracking, shown_in, tracking
from cpsae.training.loop import Stopped
from cpsae.training.processes import joined
from cpsae.training.run_folder import REPORT, SWEEP, RunFolder, run_name
from cpsae.training.sweep import SweepMember
from cpsae.workers import Worker


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep, as sweep.json has it."""

    path: Path
    keys: list[str]
    members: list[dict[str, Any]]
    """`folder`, `values` and `summary` of each run."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        runs = (
            f"  {m['folder']}: {in_words(m['summary']) if m['summary'] else m['error']}"
            for m in self.members
        )
        return "\n".join([f"SweepResult({self.path}: {len(self.members)} runs)", *runs])


@stopped_where_it_waits
def sweep(
    store: str | os.PathLike[str],
    members: Sequence[SweepMember],
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
) -> SweepResult | Stopped:
    """Train every member in its folder in `out` (by default ./runs/sweep-<8 hex>), each exactly as
    a fit of its own would, reading the store once for all. Continues what was begun there and
    leaves alone what is complete, or with `fresh` renames the whole folder aside first; more steps,
    `follow`, `init_run`, `stretch` and `track` as in `fit`, for all members, each of which is a run
    of its own in the tracker, in a group; so are several processes.

    Raises a CpsaeError as `fit` does; NonFiniteError, once the others are done, where a run
    diverged.
    """
    worker, first = Worker.from_environment(), members[0].settings
    refuse_to_follow(worker, follow)
    shown = tracking(track, track_project) if worker.is_leader else Tracking()
    with joined(worker, first.device, first.batch_size, first.split) as group:
        heard = on_event if group.is_leader else ignore
        opened = open_to_train(store, allow_partial, follow, should_stop, heard)
        refuse_other_store(opened, store_identity)
        begun = find_initial(init_run, RunFolder(Path(out) / members[0].folder) if out else None)
        name = _name(preset, members, opened, begun.fingerprint if begun else None)
        folder = RunFolder(out or Path("runs") / name).path
        jobs = [
            Job(RunFolder(folder / m.folder), m.settings, preset, stretch, begun) for m in members
        ]
        found = _unfinished(folder, jobs, opened, fresh, heard) if group.is_leader else None
        to_do = [jobs[number] for number in group.told(found)]
        runs = [job.run.path for job in jobs]
        with shown_in(replace(shown, group=folder.name), runs, heard) as trackers:
            trained: Trained | Stopped = Trained({})
            if to_do:
                device = choose_device(first.device, worker.local_rank)
                with ExitStack() as stack:
                    if group.is_leader:
                        opened = _made_ready(jobs, to_do, opened, device, group)
                        stack.enter_context(writer_lock(folder, "sweep", heard))
                    trained = train(opened, to_do, device, trackers.listen, should_stop, group)
            if isinstance(trained, Stopped):
                return trained
            trackers.finished = True
        heard(Note(f"{folder} is complete"))
        return _result(folder, members, jobs, trained, group)


def _unfinished(
    folder: Path, jobs: Sequence[Job], store: Store, fresh: bool, on_event: OnEvent
) -> list[int]:
    """Which runs there is something to do for, once nothing is in their way."""
    _refuse_foreign(folder)
    if fresh and folder.exists():
        on_event(Note(f"{folder} is kept as {set_aside(folder, 'sweep')}"))
    refuse_idle_stretch([job.run for job in jobs], jobs[0].stretch, fresh)
    found = []
    for number, job in enumerate(jobs):
        job.run.refuse_foreign()
        longer = None
        if job.run.started:
            longer = job.more_steps(store)
            note_unused(job.run, store, on_event)
        if longer is not None or not job.run.complete:
            found.append(number)
    return found


def _made_ready(
    jobs: Sequence[Job], to_do: Sequence[Job], store: Store, device: torch.device, group: Group
) -> Store:
    """The store as the runs see it, once nothing is in their way."""
    store = store_as_first_seen(jobs, store)
    for job in to_do:
        if not job.run.started:
            check(job, store, device, group)
    return store


def _result(
    folder: Path,
    members: Sequence[SweepMember],
    jobs: Sequence[Job],
    trained: Trained,
    group: Group,
) -> SweepResult:
    """Write sweep.json. Raises NonFiniteError where a run diverged."""
    keys = list(members[0].values)
    rows: list[dict[str, Any]] = []
    if group.is_leader:
        for member, job in zip(members, jobs, strict=True):
            row: dict[str, Any] = {"folder": member.folder, "values": member.values}
            error = trained.failed.get(job)
            row["summary"] = None if error else job.run.read_summary()
            rows.append(row if error is None else {**row, "error": str(error)})
        write_object(folder / SWEEP, {"keys": keys, "members": rows})
    rows = group.told(rows)
    if trained.failed:
        raise NonFiniteError(
            f"{folder}: {len(trained.failed)} of {len(jobs)} runs diverged, the others are "
            f"complete: {'; '.join(str(error) for error in trained.failed.values())}"
        )
    return SweepResult(folder, keys, rows)


def _name(preset: str, members: Sequence[SweepMember], store: Store, init: str | None) -> str:
    names = [(m.folder, run_name(preset, m.settings, store, init)) for m in members]
    return f"sweep-{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]}"


def _refuse_foreign(folder: Path) -> None:
    """Raises RunError where something else than a sweep is in the way."""
    if RunFolder(folder).started:
        raise RunError(f"{folder}: is a run, not a sweep; choose another --out")
    if not folder.exists():
        return
    if not folder.is_dir() or any(map(_is_foreign, folder.iterdir())):
        raise RunError(f"{folder}: is there already and is no sweep; choose another --out")


def _is_foreign(path: Path) -> bool:
    if path.is_dir():
        return "=" not in path.name
    return path.name not in (SWEEP, REPORT) and not is_leftover(path)
