"""What a run remembers of the trackers that it was shown in: RUN/trackers/<tracker>.json."""

import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cpsae.errors import RunError
from cpsae.json_files import read_object, write_object

_ADVICE = "remove this file to begin a new run in the tracker"


@dataclass(frozen=True)
class Sent:
    """How far a tracker has got."""

    id: str
    """Of the run there."""
    step: int = 0
    """The last one that was handed on."""
    summary_of: int = 0
    """The number of steps that the last summary was of."""
    url: str | None = None

    @classmethod
    def read(cls, folder: Path, tracker: str) -> "Sent":
        """Of a run's folder; a new one where it was never shown there. Raises RunError where the
        file is broken."""
        path = state_file(folder, tracker)
        if not path.exists():
            return cls(id=secrets.token_hex(4))
        content = read_object(path, RunError, _ADVICE)
        try:
            return cls(**content)
        except TypeError:
            raise RunError(f"{path}: is not of this release; {_ADVICE}") from None

    def write(self, folder: Path, tracker: str, **changes: Any) -> "Sent":
        """The same with changes, written."""
        changed = replace(self, **changes)
        write_object(state_file(folder, tracker), asdict(changed))
        return changed


def state_file(folder: Path, tracker: str) -> Path:
    """Where it is kept."""
    return folder / "trackers" / f"{tracker}.json"
