"""SAEBench's figures beside ours."""

from collections.abc import Mapping
from typing import Any

PREFIX = "saebench/"


def flat(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """All figures of SAEBench's groups by their own names; its counts of tokens are left out."""
    return {
        name: float(value)
        for group, figures in groups.items()
        if group != "token_stats"
        for name, value in figures.items()
    }


def table(theirs: Mapping[str, float], ours: Mapping[str, Any]) -> str:
    """Markdown: a figure a row, and by how much of SAEBench's the two differ."""
    lines = ["| figure | SAEBench | cpsae | difference |", "|---|---|---|---|"]
    for name, value in theirs.items():
        own = ours.get(PREFIX + name)
        if own is None:
            lines.append(f"| {name} | {value:.6g} | | |")
            continue
        share = abs(own - value) / max(abs(value), 1e-12)
        lines.append(f"| {name} | {value:.6g} | {own:.6g} | {share:.1e} |")
    return "\n".join(lines)
