"""The errors that a user sees: one line that names the input, what was expected, what to do next.

Anything else that escapes a command is a defect of cpsae, and keeps its traceback.
"""

from collections.abc import Iterator


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it, link by link: libraries wrap what really went wrong."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException, longest: int = 300) -> str:
    """The first line of an error's text, shortened, or its type's name where it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= longest else lines[0][:longest] + "…"


class CpsaeError(Exception):
    """A condition that the user can mend. Its text is one line; the command exits with 1."""


class SettingsError(CpsaeError):
    """A setting that is unknown, out of its range, or contradicts another one.

    `from_file`: it stands in a recipe, so that the command line alone does not show it.
    """

    def __init__(self, message: str, from_file: bool = False) -> None:
        super().__init__(message)
        self.from_file = from_file


class CorpusError(CpsaeError):
    """Text that is missing, malformed, empty, or too little."""


class ModelError(CpsaeError):
    """A language model that is missing, gated, unreadable, or has no such layer."""


class NonFiniteError(CpsaeError):
    """A NaN or an infinity in activations or in a loss."""


class StoreError(CpsaeError):
    """A folder that is no store, or a store that cannot be used as asked."""


class DamagedStoreError(StoreError):
    """Chunks that are missing, cut short or corrupt; `chunks` names them by their store path."""

    def __init__(self, message: str, chunks: list[str]) -> None:
        super().__init__(message)
        self.chunks = chunks


class RemoteError(CpsaeError):
    """A bucket or a server that cannot be reached, refuses, or is not as it must be."""


class DifferentSettingsError(CpsaeError):
    """A store or run that was begun with other settings; `differences` lists each of them."""

    def __init__(self, message: str, differences: list[str]) -> None:
        super().__init__(message)
        self.differences = differences


class BusyError(CpsaeError):
    """A store or run that another process is writing."""


class DiskError(CpsaeError):
    """A disk that is full, read-only, or too small for what was asked."""


class PlatformError(CpsaeError):
    """An operating system that lacks what writing a store or a run needs."""


class ExportError(CpsaeError):
    """An autoencoder that a format has no place for, or a folder that cannot take it."""


class SourceError(CpsaeError):
    """Something of another program's that cannot be read, or that there is no place for here."""


class GroupError(CpsaeError):
    """A process of several that work together which did not come, is gone, or does not answer."""


class RunError(CpsaeError):
    """A folder that is no run, or a run that cannot be used as asked."""
