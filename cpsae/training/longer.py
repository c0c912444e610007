"""More steps for a finished run: whether what it did is the beginning of a run of that length, what
differs where it is not, and the record of its new length. What was finished is kept beside it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cpsae.durable import disk_errors, fsync_folder, link_or_copy, make_folders, write_atomic
from cpsae.errors import DifferentSettingsError, RunError
from cpsae.sae.files import DESCRIPTION, WEIGHTS
from cpsae.store import Store
from cpsae.training.checkpoint import list_checkpoints, step_of
from cpsae.training.member import run_plan
from cpsae.training.run_folder import RunFolder, lines_up_to
from cpsae.training.schedule import Schedule
from cpsae.training.settings import FitSettings
from cpsae.training.step import schedule_lengths


@dataclass(frozen=True)
class Longer:
    """A finished run that is asked for more steps, and may have them."""

    run: RunFolder
    settings: FitSettings
    before: Schedule
    after: Schedule
    stretched: bool
    """Whether it will not be what a run of that length is."""


def find_longer(
    run: RunFolder, settings: FitSettings, store: Store, stretch: bool, init: str | None = None
) -> Longer | None:
    """None where no more steps are asked for than the run was begun with.

    Raises DifferentSettingsError where it is not finished, where anything else is asked to be
    otherwise, and, without `stretch`, where a run of that length would have begun differently;
    RunError where its last checkpoint is gone.
    """
    config = run.read_config()
    if settings.steps is None or "facts" not in config:
        return None
    before = run.facts().schedule
    if settings.steps <= before.steps:
        return None
    begun = settings.model_copy(update={"steps": config["settings"]["steps"]})
    run.refuse_other(begun, store, init)
    if not (run.complete or run.kept(before.steps).complete):
        raise DifferentSettingsError(
            f"{run.path}: is not finished, and only then can it go on from {before.steps:,} to "
            f"{settings.steps:,} steps; run the command that it was begun with first",
            [f"steps: {before.steps}, not {settings.steps}"],
        )
    _refuse_without_checkpoint(run, before.steps)
    after = Schedule.of(settings, 0, settings.batch_size, settings.n_latents or store.d)
    different = list(_differences(settings, before, after, store.d))
    if different and not stretch:
        raise DifferentSettingsError(
            f"{run.path}: a run of {after.steps:,} steps would not have begun like this one: "
            f"{'; '.join(different)}; give --stretch to go on all the same, or another --out",
            different,
        )
    kept = replace(after, warmup_steps=before.warmup_steps, scale=before.scale)
    return Longer(run, settings, before, kept, stretched=bool(different))


def begin_longer(longer: Longer) -> str:
    """Record the new length, from which moment the run is not complete; what becomes of its
    schedule, in words. For who holds the lock. Killed anywhere, it can be called again."""
    run, step = longer.run, longer.before.steps
    _keep_finished(run, step)
    # a line that is there only because that step was the last is in no longer run
    is_due = step == 1 or step % longer.settings.log_every == 0
    if run.metrics.exists():
        write_atomic(run.metrics, *lines_up_to(run.metrics, step if is_due else step - 1))
    with disk_errors(run.summary):
        run.summary.unlink(missing_ok=True)
        fsync_folder(run.path)
    config = run.read_config()
    record = {"from": step, "to": longer.after.steps, "stretched": longer.stretched}
    config["settings"]["steps"] = longer.settings.steps
    config["facts"]["schedule"] = longer.after.as_json()
    config["lengthened"] = [*config.get("lengthened", []), record]
    run.write_config(config)
    return f"{run.path}: goes on from step {step:,} to {longer.after.steps:,}; {_in_words(longer)}"


def _refuse_without_checkpoint(run: RunFolder, step: int) -> None:
    found = list_checkpoints(run.checkpoints)
    if not found or step_of(found[-1]) != step:
        raise RunError(
            f"{run.path}: cannot go on, for the checkpoint of its last step {step:,} is gone; fit "
            "the longer run anew, in another --out"
        )


def _differences(settings: FitSettings, before: Schedule, after: Schedule, d: int) -> Iterator[str]:
    """What a run of the new length would have done otherwise by now, a text each."""
    if before.warmup_steps != after.warmup_steps:
        yield (
            f"its learning rate would have risen for {after.warmup_steps:,} steps, not "
            f"{before.warmup_steps:,}"
        )
    if before.decay_steps:
        yield (
            f"its learning rate would fall in the last {after.decay_steps:,} of {after.steps:,} "
            f"steps, and has fallen already in the last {before.decay_steps:,} of {before.steps:,}"
        )
    old, new = (schedule_lengths(settings, run_plan(settings, s, d)) for s in (before, after))
    for key in new:
        if old[key] != new[key]:
            yield f"{key} would have been {new[key]:g}, not {old[key]:g}"


def _in_words(longer: Longer) -> str:
    schedule = longer.after
    words = f"the learning rate stays at {schedule.lr:g}"
    if longer.before.decay_steps:
        words = f"the learning rate goes back up to {schedule.lr:g}"
    elif schedule.lr_at(longer.before.steps + 1) < schedule.lr:
        words = f"the learning rate goes on rising to {schedule.lr:g}"
    if schedule.decay_steps:
        words += f", and falls in the last {schedule.decay_steps:,} steps"
    same = "not be what" if longer.stretched else "be what"
    return f"{words}; it will {same} a run of that length is"


def _keep_finished(run: RunFolder, step: int) -> None:
    """The files of the finished run that are there, in a folder of their own: whole or absent."""
    kept = run.kept(step)
    if kept.complete:
        return
    temporary = kept.path.with_name(f".{kept.path.name}.tmp")
    files = [run.path / WEIGHTS, run.path / DESCRIPTION]
    files += [run.config, run.metrics, run.evaluation, run.summary]
    with disk_errors(kept.path):
        shutil.rmtree(temporary, ignore_errors=True)
        make_folders(temporary)
        for file in filter(Path.exists, files):
            link_or_copy(file, temporary / file.name)
        fsync_folder(temporary)
        temporary.rename(kept.path)
        fsync_folder(kept.path.parent)
