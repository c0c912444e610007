"""The table of a comparison, as texts, and what keeps its runs from being compared."""

from collections import Counter
from collections.abc import Iterable, Sequence

from cpsae.reporting.runs import Group, Run, Spread

FIGURES = (
    "l0",
    "l0_eff",
    "explained_variance",
    "cosine",
    "ce_loss_score",
    "kl_score",
    "dead",
    "dense",
    "decoder_cosine",
    "flops",
)
"""Columns, by their names in summary.json and evaluation.json."""
_ALWAYS = ("l0", "explained_variance", "ce_loss_score", "kl_score")
"""Columns that are there also where no run has them: what is missing is to be seen."""
_UNKNOWN = "unknown"


def table(
    groups: Sequence[Group], unfinished: Sequence[tuple[str, Run]], more: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a group a row, then runs without figures, by their names. `more` are
    figures that get a column too."""
    figures = [name for name in FIGURES if name in _ALWAYS or any(g.spread(name) for g in groups)]
    figures += [name for name in dict.fromkeys(more) if name not in figures]
    seeds = any(len(group.runs) > 1 for group in groups)
    headings = ["run", "preset", *(["seeds"] if seeds else []), "n", "steps", *figures]
    rows = []
    for group in groups:
        run = group.first
        texts = [cell(group.spread(name), len(group.runs) > 1) for name in figures]
        count = [f"{len(group.runs)}"] if seeds else []
        rows.append([group.name, run.method, *count, *_size(run), *texts])
    for name, run in unfinished:
        row = [f"{name} ({run.state})", run.method, *([""] if seeds else [])]
        rows.append([*row, *_size(run), *([""] * len(figures))])
    return headings, rows


def _size(run: Run) -> list[str]:
    return [f"{run.n:,}", "" if run.steps is None else f"{run.steps:,}"]


def cell(spread: Spread | None, several: bool) -> str:
    """Four digits, with the standard deviation where there are several seeds."""
    if spread is None:
        return ""
    return f"{spread.mean:.4g} ± {spread.std:.2g}" if several else f"{spread.mean:.4g}"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table as Markdown, without a last line break."""
    lines = [headings, ["---"] * 2 + ["---:"] * (len(headings) - 2), *rows]
    return "\n".join(
        "| " + " | ".join(t.replace("|", "\\|") for t in line) + " |" for line in lines
    )


def _short(identity: str | None) -> str:
    return _UNKNOWN if identity is None else identity[:8]


def hindrances(runs: Sequence[Run]) -> str | None:
    """In what finished runs differ that makes their figures no fair comparison, in one line."""
    aspects = {
        "d": [f"{run.d:,}" for run in runs if run.d],
        "n": [f"{run.n:,}" for run in runs],
        "steps": [_UNKNOWN if run.steps is None else f"{run.steps:,}" for run in runs],
        "training rows": [f"{rows:,.0f}" for run in runs if (rows := run.value("rows"))],
        "the store trained on": [_short(run.trained_on) for run in runs],
        "the store measured on": [_short(run.measured_on) for run in runs if run.measured_on],
        "rows measured": [f"{rows:,.0f}" for run in runs if (rows := run.value("evaluation_rows"))],
    }
    told = []
    for aspect, values in aspects.items():
        counts = Counter(values)
        if len(counts) > 1:
            listed = ", ".join(f"{value} in {count}" for value, count in counts.items())
            told.append(f"{aspect} ({listed})")
    if not told:
        return None
    return f"these runs differ in {'; '.join(told)}: compare only those that are alike in it"
