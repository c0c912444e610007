"""What the environment says about stores at URLs; docs/guide.md has the list."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from cpsae.errors import SettingsError

FOLDER, SIZE = "CPSAE_CACHE_DIR", "CPSAE_CACHE_SIZE"
PATIENCE, LEASE = "CPSAE_REMOTE_PATIENCE", "CPSAE_LEASE_SECONDS"

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class RemoteSettings:
    """Limits in bytes and seconds."""

    cache: Path
    cache_bytes: int | None
    """None: a half of what the disk has free, what is cached already counted as free."""
    patience: float
    """How long a server may fail or be silent before that is an error."""
    lease: float
    """How long a writer that is not heard of is waited for."""

    @classmethod
    def from_environment(cls) -> "RemoteSettings":
        """Raises SettingsError where a variable is wrong."""
        return cls(
            cache=cache_folder(),
            cache_bytes=_bytes(SIZE),
            patience=_seconds(PATIENCE, 60.0),
            lease=_seconds(LEASE, 40.0),
        )


def cache_folder() -> Path:
    """Where copies of objects are kept."""
    given = os.environ.get(FOLDER)
    if given:
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "cpsae"


def default_bytes(folder: Path, held: int) -> int:
    """The limit where none is given, of a cache that holds `held` bytes."""
    return (shutil.disk_usage(folder).free + held) // 2


def _bytes(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SettingsError(f"{name}={text}: expected a size like 200G; 0 keeps nothing on disk")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise SettingsError(f"{name}={text}: expected a number of seconds above 0")
    return value
