"""SIGINT and SIGTERM: what they end, and how a command may put its end off."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_reached = 0.0
_deferring = False
_requested: int | None = None


class Interrupted(BaseException):
    """The user or the system asked for a stop. Not an Exception, so that nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped at {_reached:.0%}; run the same command again to continue")
        self.exit_code = 128 + number


@contextmanager
def catch_signals() -> Iterator[None]:
    """Turn both signals into `Interrupted` until the block ends."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether a stop was asked for, for work that ends by itself soon
    after. A second signal ends it at once; an asked-for stop is raised when the block ends."""
    global _deferring, _requested
    _deferring, _requested = True, None
    try:
        yield lambda: _requested is not None
    finally:
        _deferring = False
    if _requested is not None:
        raise Interrupted(_requested)


def note_progress(share: float) -> None:
    """Remember how far the work has got (0 to 1), for the text of an interruption."""
    global _reached
    _reached = share


def _handle(number: int, _frame: FrameType | None) -> None:
    global _requested
    if _deferring and _requested is None:
        _requested = number
        return
    raise Interrupted(number)
