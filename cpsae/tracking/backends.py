"""The trackers, each as three calls: begin a run, log a step, end. Imported by the tracker's own
process alone."""

import contextvars
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cpsae.tracking import PROJECT


@dataclass(frozen=True)
class RunToTrack:
    """A run as a tracker knows it."""

    folder: Path
    id: str
    """Its own, made once and kept: what a continued run is found by."""
    name: str
    group: str | None
    """The sweep that it is of."""
    project: str | None
    """None: as the environment says, else `cpsae`."""
    sent: int
    """The last step that was handed on, 0 for none."""
    hyper_parameters: Mapping[str, Any]


class Backend(Protocol):
    """One run in one tracker."""

    url: str | None
    """Where it is looked at, once that is known."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step, steps rising."""

    def end(self, summary: Mapping[str, float]) -> None:
        """Hand on all that is left; `summary` stands for the whole run."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    url: str | None = None

    def __init__(self, run: RunToTrack) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._writer = EventFileWriter(str(run.folder / "tensorboard"))
        # readers then forget what an earlier process wrote of later steps
        start = SessionLog(status=SessionLog.START)
        self._add(step=run.sent + 1, session_log=start)
        self._add(step=0, summary=hparams_pb(dict(run.hyper_parameters), trial_id=run.id))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As `Backend`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        pairs = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step=step, summary=Summary(value=pairs))

    def end(self, summary: Mapping[str, float]) -> None:  # noqa: ARG002  # its scalars are logged
        """As `Backend`."""
        self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), **content))


class Trackio:
    """A run of trackio, on this machine unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say where."""

    url: str | None = None

    def __init__(self, run: RunToTrack) -> None:
        import trackio

        # trackio ends the run before in the same context, and finds runs again by their names
        self._run = contextvars.Context().run(
            trackio.init,
            project=run.project or PROJECT,
            name=f"{run.name}-{run.id[:4]}",
            group=run.group,
            config=dict(run.hyper_parameters),
            resume="allow" if run.sent else "never",
            embed=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As `Backend`."""
        self._run.log(dict(values), step=step)

    def end(self, summary: Mapping[str, float]) -> None:  # noqa: ARG002  # its figures are logged
        """As `Backend`."""
        self._run.finish()


class Wandb:
    """A run of Weights & Biases; WANDB_MODE, WANDB_ENTITY and so on are as everywhere."""

    def __init__(self, run: RunToTrack) -> None:
        import wandb

        self._run = wandb.init(
            project=run.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run.id,
            name=run.name,
            group=run.group,
            config=dict(run.hyper_parameters),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        self.url: str | None = self._run.url

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As `Backend`."""
        self._run.log(dict(values), step=step)

    def end(self, summary: Mapping[str, float]) -> None:
        """As `Backend`."""
        self._run.summary.update(dict(summary))
        self._run.finish()


BACKENDS: dict[str, Callable[[RunToTrack], Backend]] = {
    "trackio": Trackio,
    "wandb": Wandb,
    "tensorboard": TensorBoard,
}
