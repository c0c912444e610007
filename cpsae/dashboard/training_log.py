"""What a run's metrics.jsonl says for a picture: its curves, and when each feature was enabled."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CURVES = ("loss", "mse", "l0", "n_enabled", "utilisation", "temperature")
_POINTS = 240
"""Of a curve, at most."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines that can be read, each an object with a `step`; none where there is no file."""
    lines = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                lines.append(entry)
    return lines


def curves(log: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """`step` and each of CURVES that has a number anywhere: the first line, the last, and others
    evenly between."""
    every = max(1, math.ceil(len(log) / _POINTS))
    chosen = [line for number, line in enumerate(log) if number % every == 0]
    if log and chosen[-1] is not log[-1]:
        chosen.append(log[-1])
    found: dict[str, list[float | None]] = {"step": [line["step"] for line in chosen]}
    for name in CURVES:
        values = [_number(line.get(name)) for line in chosen]
        if any(value is not None for value in values):
            found[name] = values
    return found


def enabled_at(log: Sequence[Mapping[str, Any]], m: int) -> list[int | None]:
    """Of each of m features the first logged step in which it was enabled, so that it is at most
    that; 0 for those of the first line. None where the log does not say."""
    steps: list[int | None] = []
    for number, line in enumerate(log):
        n = line.get("n_enabled")
        if isinstance(n, int):
            steps += [line["step"] if number else 0] * (min(n, m) - len(steps))
    return steps + [None] * (m - len(steps))


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(f"{value:.5g}") if is_number else None
