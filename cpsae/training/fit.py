"""Stage 2: from a store to the weights of a sparse autoencoder, in a run folder that can be
continued exactly."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cpsae.config import FitSettings
from cpsae.errors import NonFiniteError
from cpsae.events import Advanced, Finished, Note, OnEvent, Started, ignore
from cpsae.store import Store
from cpsae.training.begin import begin
from cpsae.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    unusable,
)
from cpsae.training.feed import ActivationFeed, FeedPosition
from cpsae.training.run_folder import MetricsLog, RunFolder
from cpsae.training.schedule import PAPER_STEPS, Schedule
from cpsae.training.step import StepResult, TrainState


@dataclass(frozen=True)
class Stopped:
    """A fit that was asked to stop: its last checkpoint is at `step`."""

    step: int
    steps: int


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


class Fit:
    """One run: its state, its feed, and the loop over both. For who holds the run's lock.

    Continuing a run sets torch's thread count to the one it was begun with, and its random state.
    """

    def __init__(
        self,
        run: RunFolder,
        store: Store,
        settings: FitSettings,
        device: torch.device,
        on_event: OnEvent = ignore,
    ) -> None:
        self.run = run
        self.store = store
        self.settings = settings
        self.on_event = on_event
        self.device = device
        self.schedule = Schedule.of(settings, store.training.vectors)
        every = settings.log_every
        self.checkpoint_every = -(-settings.checkpoint_every // every) * every
        self._seconds = 0.0
        self.precision = self._begun_precision() or precision_of(settings, device)
        """Of the products: decided once for a run, or another device would change it midway."""
        self.feed = self._new_feed(FeedPosition())
        found = list_checkpoints(run.checkpoints)
        self.state = self._restored(load_checkpoint(found[-1])) if found else self._begun()

    def _new_feed(self, position: FeedPosition) -> ActivationFeed:
        return ActivationFeed(
            self.store.training,
            self.settings.batch_size,
            seed=self.settings.seed,
            max_norm=self.settings.max_norm,
            window_chunks=self.settings.window_chunks,
            position=position,
            pin_memory=self.device.type == "cuda",
        )

    def _begun_precision(self) -> str | None:
        machine = self.run.read_config().get("machine", {}) if self.run.begun else {}
        return machine.get("precision")

    def _begun(self) -> TrainState:
        if self.run.begun:  # but stopped before its first checkpoint
            self._keep_bits(self.run.read_config().get("machine", {}))
        if self.settings.scale_schedule and self.schedule.shortened:
            self._note(
                f"{self.schedule.steps} steps are fewer than the paper's {PAPER_STEPS}: warm-up is "
                f"scaled to {self.schedule.warmup_steps} and annealing to "
                f"{self.schedule.anneal_steps} (scale_schedule)"
            )
        torch.manual_seed(self.settings.seed)
        return begin(self.feed, self.settings, self.schedule, self.device, precision=self.precision)

    def _restored(self, checkpoint: Checkpoint) -> TrainState:
        self._keep_bits(checkpoint.state.get("machine", {}))
        state = begin(
            self.feed,
            self.settings,
            self.schedule,
            self.device,
            precision=self.precision,
            restoring=True,
        )
        try:
            state.restore(checkpoint.step, checkpoint.tensors, checkpoint.state)
            self.feed = self._new_feed(FeedPosition(**checkpoint.state["feed"]))
            self._seconds = float(checkpoint.state["seconds"])
            torch.set_rng_state(checkpoint.tensors["torch_random_state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            path = list_checkpoints(self.run.checkpoints)[-1]
            raise unusable(path, "does not fit this run", error) from None
        self._note(f"continuing after step {checkpoint.step}")
        return state

    def _keep_bits(self, machine: dict[str, Any]) -> None:
        """Same thread count as before, and a word where equal bits cannot be promised."""
        threads = int(machine.get("threads", torch.get_num_threads()))
        if self.device.type == "cpu" and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
            self._note(f"using {threads} threads, as the run was begun with")
        now = machine_of(self.device, self.precision)
        changed = [
            f"{key} {before}, now {now.get(key)}"
            for key, before in machine.items()
            if now.get(key) != before
        ]
        if changed:
            self._note(
                f"begun on another machine ({'; '.join(changed)}): the result may differ from an "
                "uninterrupted run's in the last bits",
                "warning",
            )

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Stopped | None:
        """Run to the last step and save the autoencoder; `Stopped` where it was asked to stop
        (asked at every multiple of log_every, which then gets a checkpoint).

        Raises NonFiniteError where the loss or a weight is no number, DiskError where the disk is
        full; the last checkpoint stays.
        """
        self.on_event(Started("fit", self.schedule.steps, "step", self.state.step))
        with (
            closing(MetricsLog(self.run.metrics, self.state.step)) as log,
            closing(iter(self.feed)) as batches,
        ):
            stopped = self._loop(batches, log, should_stop)
        self.on_event(Finished())
        if stopped is None:
            self.state.autoencoder(hook_of(self.store)).save(self.run.path)
        return stopped

    def _loop(
        self, batches: Iterator[torch.Tensor], log: MetricsLog, should_stop: Callable[[], bool]
    ) -> Stopped | None:
        clock = _Clock(self._seconds, self.state.step)
        for step in range(self.state.step + 1, self.schedule.steps + 1):
            last = step == self.schedule.steps
            on_grid = step % self.settings.log_every == 0
            lr = self.schedule.lr_at(step)
            result = self.state.update(next(batches), lr, measure=on_grid or last or step == 1)
            if result is not None:
                self._refuse_non_finite(step, "the loss", math.isfinite(result.loss))
                rate = clock.lap(step) * self.settings.batch_size
                log.append(_line(step, result, lr, clock.seconds, rate))
                figures = {"loss": result.loss, "l0": result.l0, "n": result.n_enabled}
                self.on_event(Advanced(step, figures))
            stopping = on_grid and not last and should_stop()
            if last or stopping or step % self.checkpoint_every == 0:
                log.sync()
                self._save(step, clock.seconds)
            if stopping:
                return Stopped(step, self.schedule.steps)
        return None

    def _save(self, step: int, seconds: float) -> None:
        self._refuse_non_finite(step, "a weight", self.state.finite())
        tensors, state = self.state.state()
        tensors["torch_random_state"] = torch.get_rng_state()
        state |= {
            "settings": self.settings.model_dump(mode="json"),
            "feed": asdict(self.feed.position),
            "seconds": seconds,
            "machine": machine_of(self.device, self.precision),
        }
        save_checkpoint(
            self.run.checkpoints, Checkpoint(step, tensors, state), self.settings.keep_checkpoints
        )

    def _refuse_non_finite(self, step: int, what: str, finite: bool) -> None:
        if finite:
            return
        kept = list_checkpoints(self.run.checkpoints)
        last = f"; {kept[-1]} is kept" if kept else ""
        remedies = ["a lower --lr"]
        remedies += [] if self.settings.clip else ["--set clip=1"]
        remedies += [] if self.settings.max_norm else ["--set max_norm=10"]
        raise NonFiniteError(
            f"step {step}: {what} is no finite number{last}; try {' or '.join(remedies)}, "
            "with --fresh"
        )

    def _note(self, text: str, kind: str = "fact") -> None:
        self.on_event(Note(text, kind))


def precision_of(settings: FitSettings, device: torch.device) -> str:
    """bfloat16 or float32: the setting, `auto` decided by the device."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if device.type == "cuda" else "float32"


def machine_of(device: torch.device, precision: str) -> dict[str, Any]:
    """What the bits of a result depend on beside the code."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "precision": precision}
    return {
        "device": "cpu",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def hook_of(store: Store) -> dict[str, Any]:
    """Where the rows come from, as sae.json tells it to other tools."""
    manifest = store.manifest
    hook: dict[str, Any] = {"store_identity": store.identity}
    if manifest.hook:
        hook |= manifest.hook.model_dump()
    if manifest.model:
        hook |= {"model": manifest.model.id, "model_revision": manifest.model.revision}
    if manifest.contexts:
        hook |= {
            "tokens": manifest.contexts.tokens,
            "first_position_dropped": bool(manifest.contexts.first_position),
        }
    if manifest.dataset:
        hook["dataset"] = manifest.dataset.id
    return hook


def _line(
    step: int, result: StepResult, lr: float, seconds: float, rate: float
) -> dict[str, float | int | None]:
    return {
        "step": step,
        **asdict(result),
        "lr": lr,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rate, 1),
    }
