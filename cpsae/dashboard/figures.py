"""The headline figures of a run: what they are called, what they mean, how they are written."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class _Figure(NamedTuple):
    label: str
    meaning: str
    form: str = "{:.3f}"
    per_feature: bool = False
    """Whether it is a share of features, of which a number is said too."""


HEADLINES: dict[str, _Figure] = {
    "explained_variance": _Figure(
        "Explained variance",
        "How much of the variance of held-out activations the reconstruction explains: 1 is "
        "perfect, 0 is no better than the mean.",
    ),
    "l0": _Figure(
        "L0",
        "How many latents are not zero in a row, on average. Fewer are easier to read and explain "
        "less.",
        "{:.1f}",
    ),
    "l0_eff": _Figure(
        "Effective L0",
        "How many latents are over 1 % of their row's largest, on average. A softmax never gives "
        "an exact zero, so that L0 alone misleads.",
        "{:.1f}",
    ),
    "ce_loss_score": _Figure(
        "CE-loss score",
        "What of the language model's predictions survives when the reconstruction takes the "
        "place of its activations: 1 is all, 0 is no more than with zeros there.",
    ),
    "kl_score": _Figure(
        "KL score",
        "The same for the whole distribution of the next token, by its KL divergence from the "
        "model's own: 1 is no change.",
    ),
    "cosine": _Figure(
        "Cosine", "The mean cosine of an activation and its reconstruction: 1 is one direction."
    ),
    "mse": _Figure(
        "MSE", "The squared error of the reconstruction, a dimension and row.", "{:.4g}"
    ),
    "dead": _Figure(
        "Dead features",
        "The share of features that are zero in all held-out rows.",
        "{:.1%}",
        per_feature=True,
    ),
    "dense": _Figure(
        "Dense features",
        "The share of features that are not zero in over 10 % of the held-out rows. Some such "
        "features are usual; many say little.",
        "{:.1%}",
        per_feature=True,
    ),
    "decoder_cosine": _Figure(
        "Decoder cosine",
        "The cosine of a feature's decoder row with that of its nearest neighbour, on average: "
        "near 1 features say the same twice.",
    ),
}


def headlines(figures: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """Those of HEADLINES that a run has, each as the page shows it: `name`, `label`, `meaning`,
    `value`, `text`, and `detail`, a second line: its 95 % interval, or a number of features.

    n: features of the dictionary."""
    softmax = _number(figures.get("l0_eff")) != _number(figures.get("l0"))
    found = []
    for name, figure in HEADLINES.items():
        value = _number(figures.get(name))
        if value is None or (name == "l0_eff" and not softmax):
            continue
        found.append(
            {
                "name": name,
                "label": figure.label,
                "meaning": figure.meaning,
                "value": value,
                "text": figure.form.format(value),
                "detail": _detail(figure, value, figures.get(f"{name}_ci"), n),
            }
        )
    return found


def _detail(figure: _Figure, value: float, interval: Any, n: int) -> str:
    if figure.per_feature:
        return f"{round(value * n):,} of {n:,}"
    match interval:
        case [int() | float() as low, int() | float() as high]:
            ends = [figure.form.format(end) for end in (low, high)]
            return "" if ends[0] == ends[1] else f"{ends[0]} – {ends[1]}"
    return ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
