"""Waiting for other workers, who may not be there: variables of an earlier launch are left over."""

import time
from collections.abc import Callable

from cpsae.errors import GroupError
from cpsae.events import Note, OnEvent
from cpsae.workers import Worker

LOOK_SECONDS = 1.0
"""Time between two looks at what others have written."""
PATIENCE_SECONDS = 60.0
"""Time without progress after which the user is told what is waited for."""
GIVE_UP_SECONDS = 600.0
"""Time without it after which waiting ends, where nobody is at work that could bring it."""


class Patience:
    """Says once what is waited for, when nothing has come for a minute, and ends the waiting when
    those who should bring it are gone."""

    def __init__(
        self, worker: Worker, what: str, on_event: OnEvent, are_gone: Callable[[], bool]
    ) -> None:
        """what: it is waited for this, in words. are_gone: whether nobody is left to bring it."""
        self._worker, self._what, self._on_event = worker, what, on_event
        self._are_gone = are_gone
        self._since = time.monotonic()
        self._seen: object = None
        self._told = False

    def wait(self, reached: object) -> None:
        """Sleep until the next look. reached: changes whenever the others have got on.

        Raises GroupError where nothing has come for ten minutes, and nobody is at work any more.
        """
        now = time.monotonic()
        if reached != self._seen:
            self._seen, self._since, self._told = reached, now, False
        if not self._told and now - self._since >= PATIENCE_SECONDS:
            self._told = True
            self._on_event(Note(self._advice(), "warning"))
        if now - self._since >= GIVE_UP_SECONDS and self._are_gone():
            raise GroupError(
                f"this is {self._worker}, and has waited {GIVE_UP_SECONDS:g} s for {self._what}, "
                "who are gone; look for what they said last, then start all workers again: what is "
                "written stays"
            )
        time.sleep(LOOK_SECONDS)

    def _advice(self) -> str:
        names = " and ".join(self._worker.variables)
        alone = f"unset {names}" if names else "run it as the only worker"
        return (
            f"this is {self._worker}, and has waited {PATIENCE_SECONDS:g} s for {self._what}; if "
            f"the other workers do not run, start them, or stop this one and {alone}"
        )
