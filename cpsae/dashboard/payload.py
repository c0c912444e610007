"""What a page holds of features, made small: lists of whole numbers, column after column.

Strengths are whole thousandths of the feature's largest; rows and texts are numbered as they are in
the page. cpsae/dashboard/templates/data.js reads it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cpsae.dashboard.features import COSINE_EDGES, DENSITY_EDGES, WINDOW, Features
from cpsae.dashboard.firings import BINS, Amounts
from cpsae.dashboard.relations import Relation
from cpsae.dashboard.texts import Texts

_FINE = 1000


def texts_payload(texts: Texts | None, rows_per_context: int) -> dict[str, Any] | None:
    """The contexts that examples are of."""
    if texts is None:
        return None
    return {
        "first": texts.first_position,
        "rows": rows_per_context,
        "contexts": texts.tokens,
        "vocabulary": texts.vocabulary,
        "before": WINDOW[0],
        "after": WINDOW[1],
    }


def summary_payload(features: Features) -> dict[str, Any]:
    """What the pictures show of all features, not of those alone that have examples."""
    fired = features.counts > 0
    return {
        "m": features.m,
        "n": features.n,
        "rows": features.codes.counted,
        "held_out": min(features.seen.held_out, features.codes.rows),
        "silent": int((~fired).sum()),
        "dense": int((features.density > 0.1).sum()),
        "density": features.density_histogram().tolist(),
        "density_edges": _rounded(DENSITY_EDGES),
        "cosine": features.cosine_histogram().tolist(),
        "cosine_edges": _rounded(COSINE_EDGES),
    }


def features_payload(
    features: Features, texts: Texts | None, enabled: Sequence[int | None], amounts: Amounts
) -> dict[str, Any]:
    """All that is shown of each feature in `features.shown`, column by column."""
    shown = list(features.shown)
    columns: dict[str, Any] = {
        "ids": shown if len(shown) < features.m else None,
        "count": features.counts[shown].tolist(),
        "largest": _rounded(features.largest[shown]),
        "enabled": [enabled[i] for i in shown],
        "bins": BINS,
        "near": features.neighbours[shown].tolist(),
        "cosine": (features.cosines[shown] * _FINE).round().astype(int).tolist(),
    }
    each = [_Feature(features, i, texts, amounts) for i in shown]
    columns["histogram"] = [feature.histogram for feature in each]
    columns["words"] = [feature.words for feature in each]
    columns["marks"] = [feature.marks for feature in each]
    columns["examples"] = [feature.examples for feature in each]
    columns["together"] = [_relations(features.together(i)) for i in shown]
    columns["suppressed"] = [_relations(features.suppressed(i)) for i in shown]
    return columns


def lens_payload(features: Features, vocabulary: Sequence[str]) -> dict[str, Any] | None:
    """Promoted and suppressed tokens; vocabulary: what each token says, by its id, of those that
    occur, empty for others."""
    found = features.promoted
    if found is None:
        return None
    used = np.unique(np.concatenate([found.up.ravel(), found.down.ravel()]))
    place = {int(token): number for number, token in enumerate(used)}
    return {
        "vocabulary": [vocabulary[token] for token in used],
        "up": [[place[int(token)] for token in row] for row in found.up],
        "up_logits": [_rounded(row) for row in found.up_logits],
        "down": [[place[int(token)] for token in row] for row in found.down],
        "down_logits": [_rounded(row) for row in found.down_logits],
    }


class _Feature:
    """One feature's part of the columns."""

    def __init__(
        self, features: Features, feature: int, texts: Texts | None, amounts: Amounts
    ) -> None:
        self.histogram = features.firings.histogram(feature).tolist()
        self.words: list[list[int]] = []
        self.marks: list[list[int]] = [[], []]
        self.examples: list[Any] = [[], [], []]
        if texts is None:
            return
        self.words = [[w, round(_FINE * share)] for w, share in features.words(feature, texts)]
        chosen = features.examples(feature, amounts)
        window = features.window(feature, chosen)
        here = _renumbered(features, texts, window.rows)
        known = here >= 0
        top = max(float(features.largest[feature]), 1e-12)
        strengths = (window.values[known] / top * _FINE).round().astype(int)
        self.marks = [np.diff(here[known], prepend=0).tolist(), strengths.tolist()]
        places = np.searchsorted(window.rows[known], chosen.top)
        self.examples = [
            places.tolist(),
            [np.searchsorted(window.rows[known], band).tolist() for band in chosen.bands],
            np.searchsorted(window.rows[known], chosen.random).tolist(),
        ]


def _renumbered(features: Features, texts: Texts, rows: Any) -> Any:
    """Rows as the page numbers them: context by context; -1 for those of other contexts, which a
    window may reach into."""
    contexts = features.seen.contexts(rows)
    new = np.array([texts.contexts.get(int(c), -1) for c in contexts], dtype=np.int64)
    within = rows - texts.first_rows[np.maximum(new, 0)]
    return np.where(new >= 0, new * features.seen.rows_per_context + within, -1)


def _relations(found: Sequence[Relation]) -> list[list[int]]:
    return [[relation.feature, round(_FINE * relation.share)] for relation in found]


def _rounded(values: Any) -> list[float]:
    return [float(f"{float(value):.4g}") for value in values]
