"""A run's figures in a line, as results show them."""

from collections.abc import Mapping
from typing import Any

_SHOWN = ("explained_variance", "cosine", "l0", "l0_eff", "dead", "ce_loss_score", "steps")


def in_words(figures: Mapping[str, Any]) -> str:
    """The figures that say most, where they are there."""
    known = {name: figures[name] for name in _SHOWN if figures.get(name) is not None}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in known.items()
    )
