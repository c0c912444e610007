"""The hub: which names are its own, and its client's chatter."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any


def is_path(name: str | None) -> bool:
    """Whether this is no name of the hub, which has one slash at most."""
    if not name:
        return False
    path = PurePath(name)
    return path.is_absolute() or name[0] in ".~" or len(path.parts) > 2 or path.suffix == ".gguf"


def last_part(name: str | None) -> str | None:
    """What of it other machines may know: of a path its last part, else the name."""
    return PurePath(name).name if name is not None and is_path(name) else name


@contextmanager
def quiet() -> Iterator[None]:
    """Mute the bars and the log of the hub's client within: an error says it in one line."""
    from huggingface_hub import utils

    hub: Any = utils  # it re-exports these without saying so, which mypy refuses
    verbosity, bars = hub.logging.get_verbosity(), not hub.are_progress_bars_disabled()
    hub.logging.set_verbosity(hub.logging.ERROR)
    hub.disable_progress_bars()
    try:
        yield
    finally:
        hub.logging.set_verbosity(verbosity)
        if bars:
            hub.enable_progress_bars()
