"""Features as Neuronpedia takes them: a JSON file each, and batches for its upload.

Its keys are those of POST /api/feature/upload-batch (batches) and of its feature files.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpsae.dashboard.features import Features
from cpsae.dashboard.firings import BANDS, Amounts
from cpsae.dashboard.rows import Ints
from cpsae.dashboard.texts import Texts

BATCH = 128
"""Features of an upload, at most."""
_AROUND = (64, 63)


@dataclass(frozen=True)
class Place:
    """Where Neuronpedia puts them."""

    model: str
    source: str
    """`<layer>-<name>`."""


@dataclass(frozen=True)
class _Example:
    tokens: list[str]
    values: list[float]
    at: int
    """Which of the tokens it is of."""


def neuronpedia_files(
    features: Features,
    texts: Texts,
    vocabulary: Sequence[str],
    place: Place,
    amounts: Amounts,
) -> Iterator[tuple[str, bytes]]:
    """Names and contents: features/N.json of each feature that is shown, and batch-N.json of those
    that fired, for a feature that never fires cannot be uploaded. vocabulary: what each token of
    the tokenizer says, for the logit lens."""
    batch: list[dict[str, Any]] = []
    number = 0
    for row, feature in enumerate(features.shown):
        one = _Feature(features, texts, vocabulary, row, feature, amounts)
        yield f"features/{feature}.json", _json(one.file())
        if features.counts[feature]:
            batch.append(one.upload())
        if len(batch) == BATCH or (batch and row == len(features.shown) - 1):
            content = {"modelId": place.model, "source": place.source, "features": batch}
            yield f"batch-{number}.json", _json(content)
            batch, number = [], number + 1


class _Feature:
    def __init__(
        self,
        features: Features,
        texts: Texts,
        vocabulary: Sequence[str],
        row: int,
        feature: int,
        amounts: Amounts,
    ) -> None:
        self._features, self._texts, self._feature = features, texts, feature
        chosen = features.examples(feature, amounts)
        self._top = [self._example(r) for r in chosen.top]
        self._bands = [[self._example(r) for r in band] for band in chosen.bands]
        self._random = [self._example(r) for r in chosen.random]
        self._up, self._down = _logits(features, vocabulary, row)

    def file(self) -> dict[str, Any]:
        """Its feature file."""
        names = ["Top activations", *(f"Quantile {low:g} to {high:g}" for low, high in BANDS)]
        groups = [self._top, *self._bands, self._random]
        return {
            "index": self._feature,
            "examples_quantiles": [
                {"quantile_name": name, "examples": [_in_file(e) for e in group]}
                for name, group in zip([*names, "Random"], groups, strict=True)
                if group
            ],
            "top_logits": [token["token"] for token in self._up],
            "bottom_logits": [token["token"] for token in self._down],
            "act_min": 0.0,
            "act_max": _figure(self._features.largest[self._feature]),
            "activation_frequency": _figure(self._features.density[self._feature]),
        }

    def upload(self) -> dict[str, Any]:
        """Its part of a batch."""
        values = self._features.firings.values(self._feature)
        activations = [_upload(example, 0.0, float(values.max()), 1.0) for example in self._top]
        for (low, high), band in zip(BANDS, self._bands, strict=True):
            least, most = np.quantile(values, (low, high)).tolist()
            activations += [_upload(example, least, most, high - low) for example in band]
        return {
            "index": self._feature,
            "density": _figure(self._features.density[self._feature]),
            "topLogits": self._up,
            "bottomLogits": self._down,
            "explanations": [],
            "activations": activations,
        }

    def _example(self, row: int) -> _Example:
        one = np.array([row], dtype=np.int64)
        seen = self._features.seen
        context = int(seen.contexts(one)[0])
        position = int(seen.positions(one)[0])
        words = self._texts.tokens[self._texts.contexts[context]]
        at = position + self._texts.first_position
        start, end = max(0, at - _AROUND[0]), min(len(words), at + 1 + _AROUND[1])
        values = np.zeros(len(words))
        rows, strengths = self._firing_in(row - position, seen.rows_per_context)
        values[rows - (row - position) + self._texts.first_position] = strengths
        return _Example(
            [self._texts.vocabulary[word] for word in words[start:end]],
            [_figure(value) for value in values[start:end]],
            at - start,
        )

    def _firing_in(self, first: int, count: int) -> tuple[Ints, Any]:
        rows = self._features.firings.rows(self._feature)
        here = slice(*np.searchsorted(rows, [first, first + count]))
        return rows[here], self._features.firings.values(self._feature)[here]


def _logits(
    features: Features, vocabulary: Sequence[str], row: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found = features.promoted
    if found is None:
        return [], []
    pairs = (found.up, found.up_logits), (found.down, found.down_logits)
    up, down = (
        [
            {"token": vocabulary[token], "value": _figure(value)}
            for token, value in zip(tokens[row], values[row], strict=True)
        ]
        for tokens, values in pairs
    )
    return up, down


def _in_file(example: _Example) -> dict[str, Any]:
    return {
        "tokens": example.tokens,
        "tokens_acts_list": example.values,
        "train_token_ind": example.at,
    }


def _upload(example: _Example, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "tokens": example.tokens,
        "values": example.values,
        "quantileMin": _figure(low),
        "quantileMax": _figure(high),
        "quantileFraction": share,
    }


def _figure(value: Any) -> float:
    return float(f"{float(value):.5g}")


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()
