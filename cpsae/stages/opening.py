"""The store that a run is trained on: a finished one, what there is of it, or one that grows."""

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from cpsae.errors import SettingsError
from cpsae.events import OnEvent
from cpsae.store import Store, follow_store, open_store
from cpsae.store.growing import StoppedWaiting
from cpsae.training.loop import Stopped
from cpsae.workers import Worker

P = ParamSpec("P")
R = TypeVar("R")


def stopped_where_it_waits(stage: Callable[P, R]) -> Callable[P, R | Stopped]:
    """A stage that ends with `Stopped` too where it is asked to stop before its first update, in
    waiting for a store that it follows."""

    @wraps(stage)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | Stopped:
        try:
            return stage(*args, **kwargs)
        except StoppedWaiting:
            return Stopped(0, 0)

    return call


def refuse_to_follow(worker: Worker, follow: bool) -> None:
    """Raises SettingsError where several processes would wait: they do not see a row at the same
    moment, and a wait has no end by which one that is gone could be told from one that waits."""
    if follow and worker.count > 1:
        raise SettingsError(
            f"--follow: {worker.count} processes cannot train beside an extraction; start fit "
            "without torchrun, or leave --follow out once the store is complete"
        )


def open_to_train(
    store: str | os.PathLike[str],
    allow_partial: bool,
    follow: bool,
    should_stop: Callable[[], bool],
    on_event: OnEvent,
) -> Store:
    """The store, as it is or, to `follow`, as it will be. Raises what `open_store` and
    `follow_store` raise, and SettingsError where both ways are asked for."""
    if follow and allow_partial:
        raise SettingsError(
            "--follow and --allow-partial: wait for all rows, or take those that are there; "
            "choose one"
        )
    if follow:
        return follow_store(store, should_stop, on_event)
    return open_store(store, allow_partial)
