"""JSON files that programs write and people may edit: read as objects, written whole."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpsae.durable import write_atomic
from cpsae.errors import CpsaeError


def read_object(path: Path, error: type[CpsaeError], advice: str) -> dict[str, Any]:
    """The object in a JSON file. Raises `error`, one line that ends with `advice`, where the file
    is missing, is not JSON, or holds something else than an object."""
    try:
        return parse_object(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path}: missing; {advice}") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path}: {reason}; {advice}") from None


def parse_object(content: bytes) -> dict[str, Any]:
    """Raises ValueError, whose text says how, where `content` is no JSON object."""
    try:
        value = json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def object_at(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object at a key, empty where there is none: for files that older releases wrote."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def write_object(path: Path, content: Mapping[str, Any]) -> None:
    """Indented JSON, keys sorted, committed atomically: equal contents give equal bytes.

    Raises ValueError for a NaN or an infinity, which JSON has not; DiskError on a full disk.
    """
    write_atomic(path, as_json_bytes(content))


def as_json_bytes(content: Mapping[str, Any]) -> bytes:
    """Indented JSON, keys sorted. Raises ValueError for a NaN or an infinity."""
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
