"""One run of a loop: what is trained, its schedule, its log and its checkpoints."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from cpsae.device import is_out_of_memory
from cpsae.errors import NonFiniteError, SettingsError
from cpsae.events import Note, OnEvent, ignore
from cpsae.sae.files import describe, write_autoencoder
from cpsae.sae.group import ALONE, Group
from cpsae.sae.kind import Kind, RunPlan
from cpsae.sae.kinds import kind_names, load_kind
from cpsae.sae.progressive import Enabling
from cpsae.tensor_files import Streamed, go_through
from cpsae.training.checkpoint import (
    Checkpoint,
    keep_last,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    unusable,
)
from cpsae.training.facts import Facts
from cpsae.training.feed import FeedPosition
from cpsae.training.initial import taken
from cpsae.training.machine import machine_of
from cpsae.training.run_folder import MetricsLog, RunFolder, log_checksum
from cpsae.training.schedule import Schedule
from cpsae.training.settings import FitSettings
from cpsae.training.start import first_weights
from cpsae.training.step import StepResult, Trainable


class Member:
    """A run in its folder, whose lock is held, from wherever it has got to. Of several processes
    the leader alone opens the folder; the others get from it what they need.

    `step` is the last update that it holds, `position` where the feed goes on after it.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: FitSettings,
        facts: Facts,
        d: int,
        device: torch.device,
        on_event: OnEvent = ignore,
        group: Group = ALONE,
    ) -> None:
        """Continues from the last checkpoint, or begins.

        Raises SettingsError where the settings do not fit d, the memory or the group, RunError
        where the checkpoint cannot be used.
        """
        self.run = run
        self.settings = settings
        self.schedule = facts.schedule
        self.device = device
        self.group = group
        every = settings.log_every
        self._checkpoint_every = -(-settings.checkpoint_every // every) * every
        self.position = FeedPosition()
        self._seconds = 0.0
        found = list_checkpoints(run.checkpoints) if group.is_leader else []
        checkpoint = load_checkpoint(found[-1]) if found else None
        begins = group.is_leader and checkpoint is None
        start = run.read_start() if begins else None
        self.trainable = new_trainable(settings, facts, d, device, start, group)
        if checkpoint is not None:
            run.refuse_damaged_log(checkpoint, every)
        self._continue(checkpoint)
        if checkpoint is not None:
            keep_last(run.checkpoints, settings.keep_checkpoints)  # a kill may have come before it
            on_event(Note(f"{run.path}: continuing after step {checkpoint.step}"))
        self._clock = _Clock(self._seconds, self.step)
        self._log: MetricsLog | None = None

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.trainable.step

    def update(self, rows: torch.Tensor) -> StepResult | None:
        """The next update, from rows (batch_size, d) of the feed; its figures, where they are
        logged. Raises NonFiniteError where the loss is no number, DiskError on a full disk."""
        if self._log is None and self.group.is_leader:
            self._log = MetricsLog(self.run.metrics, self.step)
        step = self.step + 1
        measure = step in (1, self.schedule.steps) or step % self.settings.log_every == 0
        lr = self.schedule.lr_at(step)
        result = self.trainable.update(rows, lr, measure)
        if result is not None:
            self._refuse_non_finite()
        if result is not None and self._log is not None:
            rate = self._clock.lap(step) * self.settings.batch_size
            line = {
                "step": step,
                **result.as_json(),
                "lr": lr,
                "seconds": round(self._clock.seconds, 3),
                "rows_per_second": round(rate, 1),
            }
            self._log.append(line)
        return result

    def wants_checkpoint(self) -> bool:
        """Whether one belongs after the update made last."""
        return self.step == self.schedule.steps or self.step % self._checkpoint_every == 0

    def save(self, position: FeedPosition) -> None:
        """Write a checkpoint; the feed goes on at `position`. Raises NonFiniteError, and writes
        nothing, where a weight is no number."""
        self._refuse_non_finite(weights=True)
        tensors = self.trainable.whole_state()
        if self.group.is_leader:
            self._write_checkpoint(tensors, position)
        else:
            go_through(tensors)
        self.group.wait()

    def write_autoencoder(self, hook: Mapping[str, Any]) -> None:
        """Write the autoencoder's files for inference. All processes of the group call this."""
        trainable, tensors = self.trainable, self.trainable.whole_autoencoder()
        if not self.group.is_leader:
            go_through(tensors)
            return
        enabled = trainable.enabling.n_enabled
        content = describe(trainable.kind, trainable.normalizer, enabled, hook)
        write_autoencoder(self.run.path, tensors, content)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    def _write_checkpoint(self, tensors: Mapping[str, Streamed], position: FeedPosition) -> None:
        if self._log is not None:
            self._log.sync()
        state = {
            **self.trainable.state()[1],
            "log": log_checksum(self.run.metrics, self.step, self.settings.log_every),
            "settings": self.settings.model_dump(mode="json"),
            "feed": asdict(position),
            "seconds": self._clock.seconds,
            "machine": machine_of(self.device, self.group),
        }
        keep = self.settings.keep_checkpoints
        save_checkpoint(self.run.checkpoints, self.step, tensors, state, keep)

    def _continue(self, checkpoint: Checkpoint | None) -> None:
        """All processes of the group go on from the checkpoint that the leader has read, if any."""
        said = self.group.told([checkpoint.step, checkpoint.state] if checkpoint else None)
        if said is None:
            return
        step, state = said
        try:
            self.trainable.restore(step, checkpoint.tensors if checkpoint else {}, state)
            self.position = FeedPosition(**state["feed"])
            self._seconds = float(state["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if not self.group.is_leader:
                raise
            path = list_checkpoints(self.run.checkpoints)[-1]
            raise unusable(path, "does not fit this run", error) from None

    def _refuse_non_finite(self, weights: bool = False) -> None:
        step, what = self.trainable.broken_at(), "the loss"
        if not step and weights and self.group.any(not self.trainable.finite()):
            step, what = self.step, "a weight"
        if not step:
            return
        kept = list_checkpoints(self.run.checkpoints) if self.group.is_leader else []
        last = f"; {kept[-1]} is kept" if kept else ""
        remedies = ["a lower --lr"]
        remedies += [] if self.settings.clip else ["--set clip=1"]
        remedies += [] if self.settings.max_norm else ["--set max_norm=10"]
        raise NonFiniteError(
            f"{self.run.path}: step {step}: {what} is no finite number{last}; try "
            f"{' or '.join(remedies)}, with --fresh"
        )


def new_trainable(
    settings: FitSettings,
    facts: Facts,
    d: int,
    device: torch.device,
    start: Mapping[str, torch.Tensor] | None = None,
    group: Group = ALONE,
) -> Trainable:
    """What is trained, before update 1. start: what the first weights take from the store, or from
    another run.

    Raises SettingsError where the settings do not fit d or the group, or the weights do not fit the
    memory.
    """
    plan = run_plan(settings, facts.schedule, d)
    with _memory_errors(plan, device):
        kind = load_kind(settings.kind)(settings.method, plan)
        _refuse_group(kind, settings, group)
        start = start or {}
        whole = {}
        if group.is_leader:
            whole = taken(kind, start) or first_weights(kind, settings, start)
        weights = {}
        for name, spec in kind.weights.items():
            sizes = spec.sizes(d, group.features(plan.n))
            weights[name] = torch.empty(sizes, dtype=spec.dtype, device=device)
            group.hand_out(whole.pop(name, None), weights[name], spec.per_feature)
        if facts.n_enabled is not None:  # begun from another run: the leader alone has read it
            for name in (name for name, spec in kind.state.items() if spec.saved):
                kind.tensors[name] = group.of_leader(kind.tensors[name].to(device))
        return Trainable(
            weights,
            kind,
            facts.normalizer,
            settings,
            bfloat16=facts.precision == "bfloat16",
            group=group,
            n_enabled=facts.n_enabled,
        )


def _refuse_group(kind: Kind, settings: FitSettings, group: Group) -> None:
    if group.size == 1:
        return
    flag = "works_split" if group.splits else "works_in_groups"
    if not getattr(kind, flag):
        able = ", ".join(name for name in kind_names() if getattr(load_kind(name), flag))
        what, otherwise = "trained by several processes", "start it without torchrun"
        if group.splits:
            what, otherwise = "split over features", "take --split data"
        raise SettingsError(
            f"kind {settings.kind}: does not say that it can be {what}; {otherwise}, or take one "
            f"of {able}"
        )
    enabled = Enabling.from_settings(settings, kind.plan.n, kind.plan.steps).n_enabled
    if group.splits and enabled < group.size:
        raise SettingsError(
            f"n_latents {kind.plan.n}: {group.size} processes cannot share the features that are "
            f"enabled at first ({enabled}); take fewer processes, or --split data"
        )


def refuse_unfit(settings: FitSettings, schedule: Schedule, d: int, group: Group = ALONE) -> None:
    """Raises SettingsError where the settings do not fit d or the group. Makes no weights."""
    plan = run_plan(settings, schedule, d)
    with _memory_errors(plan, torch.device("cpu")):
        kind = load_kind(settings.kind)(settings.method, plan)
    _refuse_group(kind, settings, group)


@contextmanager
def _memory_errors(plan: RunPlan, device: torch.device) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise SettingsError(
            f"n_latents {plan.n}: the weights of {plan.n:,} x {plan.d} and their moments do not "
            f"fit the memory of {device}; take a smaller --n-latents"
        ) from None


def run_plan(settings: FitSettings, schedule: Schedule, d: int) -> RunPlan:
    """What a kind may know of a run on rows (d,)."""
    return RunPlan(
        d=d,
        n=settings.n_latents or d,
        steps=schedule.steps,
        rows=schedule.steps * settings.batch_size,
        schedule_scale=schedule.scale,
        mse_reduction=settings.mse_reduction,
    )


class _Clock:
    """Seconds that a run has taken, those before an interruption included."""

    def __init__(self, seconds: float, step: int) -> None:
        self.seconds = seconds
        self._step = step
        self._began = time.monotonic() - seconds

    def lap(self, step: int) -> float:
        """Move `seconds` on to now; steps a second since the last lap."""
        steps, before = step - self._step, self.seconds
        self.seconds, self._step = time.monotonic() - self._began, step
        return steps / max(self.seconds - before, 1e-9)
