"""Stage 2: from a store to the weights of a sparse autoencoder, in a run folder that can be
continued exactly."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cpsae.config import FitSettings
from cpsae.errors import NonFiniteError, RunError
from cpsae.events import Advanced, Finished, Note, OnEvent, Started, ignore
from cpsae.store import Store
from cpsae.training.begin import begin
from cpsae.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
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


class Fit:
    """One run: its state, its feed, and the loop over both."""

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
        self.seconds = 0.0
        self.feed = self._new_feed(FeedPosition())
        self.state = self._restored() or self._begun()

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

    def _begun(self) -> TrainState:
        if self.settings.scale_schedule and self.schedule.shortened:
            self._note(
                f"{self.schedule.steps} steps are fewer than the paper's {PAPER_STEPS}: warm-up is "
                f"scaled to {self.schedule.warmup_steps} and annealing to "
                f"{self.schedule.anneal_steps} (scale_schedule)"
            )
        return begin(self.feed, self.settings, self.schedule, self.device)

    def _restored(self) -> TrainState | None:
        found = list_checkpoints(self.run.checkpoints)
        if not found:
            return None
        checkpoint = load_checkpoint(found[-1])
        self._keep_bits(checkpoint.state["machine"])
        state = begin(self.feed, self.settings, self.schedule, self.device)
        try:
            state.restore(checkpoint.step, checkpoint.tensors, checkpoint.state)
            position = FeedPosition(**checkpoint.state["feed"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{found[-1]}: does not fit this run ({error}); remove this folder to continue "
                "from the one before, or use --fresh"
            ) from None
        torch.set_rng_state(checkpoint.tensors["torch_random_state"])
        self.feed = self._new_feed(position)
        self.seconds = float(checkpoint.state["seconds"])
        self._note(f"continuing after step {checkpoint.step}")
        return state

    def _keep_bits(self, machine: dict[str, Any]) -> None:
        """Same thread count as before, and a word where equal bits cannot be promised."""
        if self.device.type == "cpu" and machine["threads"] != torch.get_num_threads():
            torch.set_num_threads(int(machine["threads"]))
            self._note(f"using {machine['threads']} threads, as the run was begun with")
        now = machine_of(self.device)
        changed = [
            f"{key} {machine[key]}, now {now[key]}" for key in now if now[key] != machine[key]
        ]
        if changed:
            self._note(
                f"begun on another machine ({'; '.join(changed)}): the result may differ from an "
                "uninterrupted run's in the last bits",
                "warning",
            )

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Stopped | None:
        """Run to the last step and save the autoencoder; `Stopped` where it was asked to stop
        (at the next multiple of log_every, with a checkpoint).

        Raises NonFiniteError where the loss is no number; the last checkpoint stays.
        """
        log = MetricsLog(self.run.metrics, self.state.step)
        self.on_event(Started("fit", self.schedule.steps, "step", self.state.step))
        try:
            stopped = self._loop(log, should_stop)
        finally:
            log.close()
        self.on_event(Finished())
        if stopped is None:
            self.state.autoencoder(hook_of(self.store)).save(self.run.path)
        return stopped

    def _loop(self, log: MetricsLog, should_stop: Callable[[], bool]) -> Stopped | None:
        began, logged_at, logged_step = (
            time.monotonic() - self.seconds,
            self.seconds,
            self.state.step,
        )
        batches = iter(self.feed)
        for step in range(self.state.step + 1, self.schedule.steps + 1):
            last = step == self.schedule.steps
            on_grid = step % self.settings.log_every == 0
            measured = on_grid or last or step == 1
            lr = self.schedule.lr_at(step)
            result = self.state.update(next(batches), lr, measured)
            if result is not None:
                self._refuse_non_finite(step, result)
                self.seconds = time.monotonic() - began
                rows = (step - logged_step) * self.settings.batch_size
                rate = rows / max(self.seconds - logged_at, 1e-9)
                logged_at, logged_step = self.seconds, step
                log.append(_line(step, result, lr, self.seconds, rate))
                self.on_event(
                    Advanced(step, {"loss": result.loss, "l0": result.l0, "n": result.n_enabled})
                )
            stopping = on_grid and not last and should_stop()
            if last or stopping or step % self.checkpoint_every == 0:
                log.sync()
                self._save(step)
            if stopping:
                return Stopped(step, self.schedule.steps)
        return None

    def _save(self, step: int) -> None:
        tensors, state = self.state.state()
        tensors["torch_random_state"] = torch.get_rng_state()
        state |= {
            "feed": asdict(self.feed.position),
            "seconds": self.seconds,
            "machine": machine_of(self.device),
        }
        save_checkpoint(
            self.run.checkpoints, Checkpoint(step, tensors, state), self.settings.keep_checkpoints
        )

    def _refuse_non_finite(self, step: int, result: StepResult) -> None:
        if result.loss - result.loss == 0:
            return
        kept = list_checkpoints(self.run.checkpoints)
        last = f"; {kept[-1]} is kept" if kept else ""
        raise NonFiniteError(
            f"step {step}: the loss is {result.loss}{last}; try a lower --lr, --set clip=1, or "
            "--set max_norm=10, with --fresh"
        )

    def _note(self, text: str, kind: str = "fact") -> None:
        self.on_event(Note(text, kind))


def machine_of(device: torch.device) -> dict[str, Any]:
    """What the bits of a result depend on beside the code: device and CPU capability, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
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
            "bos_dropped": manifest.contexts.first_position,
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
