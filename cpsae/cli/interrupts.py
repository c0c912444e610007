"""SIGINT, SIGTERM and SIGHUP: what they end, and how a command may put its end off.

The first signal raises `Interrupted` in the main thread, wherever it is: on the disk everything is
committed whole or not at all, so there is no place where that would do harm. A second one cuts
short the waiting for threads that still write, a third one ends the process on the spot.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PATIENCE = 2
"""Signals that are answered by an exception; the next one finds a process that does not listen."""
_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Of those that the system knows: Windows has no SIGHUP."""
_STOPPING = b"stopping once what is done is safe; press again to stop at once\n"

_reached = 0.0
_deferring = False
_received: list[int] = []


class Interrupted(BaseException):
    """The user or the system asked for a stop. Not an Exception, so that nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped at {_reached:.0%}; run the same command again to continue")
        self.exit_code = 128 + number


@contextmanager
def catch_signals() -> Iterator[None]:
    """Turn the signals into `Interrupted` until the block ends; those that were ignored at the
    start (nohup ignores SIGHUP) stay ignored."""
    _received.clear()
    heard = [number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _handle) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether a stop was asked for, for work that ends by itself soon
    after (and is then followed by `raise interruption()`). A second signal ends it at once."""
    global _deferring
    _deferring = True
    try:
        yield lambda: bool(_received)
    finally:
        _deferring = False


def interruption() -> Interrupted:
    """What the signal that was deferred comes to."""
    return Interrupted(_received[0] if _received else signal.SIGINT)


def raise_if_lost() -> None:
    """Raise again where a library swallowed the exception: Python drops those that a signal raises
    inside a finaliser or a weak reference's callback. Called whenever a stage reports something."""
    if _received and not _deferring:
        raise interruption()


def note_progress(share: float) -> None:
    """Remember how far the work has got (0 to 1), for the text of an interruption."""
    global _reached
    _reached = share


def _handle(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    if len(_received) > _PATIENCE:
        os._exit(128 + number)
    if _deferring and len(_received) == 1:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, _STOPPING)  # print could be in the middle of another print here
        return
    raise Interrupted(number)
