"""Waiting for other workers, who may not be there: variables of an earlier launch are left over."""

import time

from cpsae.events import Note, OnEvent
from cpsae.workers import Worker

LOOK_SECONDS = 1.0
"""Time between two looks at what others have written."""
PATIENCE_SECONDS = 60.0
"""Time without progress after which the user is told what is waited for."""


class Patience:
    """Says once what is waited for, when nothing has come for a minute."""

    def __init__(self, worker: Worker, what: str, on_event: OnEvent) -> None:
        """what: it is waited for this, in words."""
        self._worker, self._what, self._on_event = worker, what, on_event
        self._since = time.monotonic()
        self._seen: object = None
        self._told = False

    def wait(self, reached: object) -> None:
        """Sleep until the next look. reached: changes whenever the others have got on."""
        now = time.monotonic()
        if reached != self._seen:
            self._seen, self._since, self._told = reached, now, False
        if not self._told and now - self._since >= PATIENCE_SECONDS:
            self._told = True
            self._on_event(Note(self._advice(), "warning"))
        time.sleep(LOOK_SECONDS)

    def _advice(self) -> str:
        names = " and ".join(self._worker.variables)
        alone = f"unset {names}" if names else "run it as the only worker"
        return (
            f"this is {self._worker}, and has waited {PATIENCE_SECONDS:g} s for {self._what}; if "
            f"the other workers do not run, start them, or stop this one and {alone}"
        )
