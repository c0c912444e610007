"""Runs whose features a report shows: each is encoded once, and told in as many examples as the
page has room for."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpsae.dashboard.codes import encode_rows
from cpsae.dashboard.features import Features
from cpsae.dashboard.firings import Amounts
from cpsae.dashboard.neuronpedia import Place, neuronpedia_files
from cpsae.dashboard.page import MOST_BYTES as MOST_BYTES
from cpsae.dashboard.payload import (
    features_payload,
    lens_payload,
    summary_payload,
    texts_payload,
)
from cpsae.dashboard.rows import SeenRows
from cpsae.dashboard.texts import Texts, gather_texts
from cpsae.dashboard.training_log import enabled_at, read_log
from cpsae.device import choose_device
from cpsae.errors import ExportError, StoreError
from cpsae.events import OnEvent
from cpsae.interop.exported import free_folder, write_folder
from cpsae.interop.origin import Origin
from cpsae.reporting.runs import Run
from cpsae.stages.load import load
from cpsae.stages.run_store import run_on_store
from cpsae.stages.shown_runs import model_name
from cpsae.store import Store
from cpsae.training.run_folder import RunFolder
from cpsae.urls import Place as StorePlace

if TYPE_CHECKING:
    from cpsae.stages.store_language import StoreLanguage

_MOST_FEATURES = 10_000
"""Of all runs of a page together, those that are shown with examples."""
_AMOUNTS = (
    Amounts(),
    Amounts(top=8, band=2, random=3),
    Amounts(top=5, band=1, random=2),
    Amounts(top=3, band=1, random=0),
    Amounts(top=1, band=0, random=0),
)
"""How many examples there may be, until the page is small enough."""
_NEURONPEDIA = Amounts(top=20, band=5, random=10)


@dataclass(frozen=True)
class Look:
    """How features are looked at, as `report` takes it."""

    rows: int
    store: str | os.PathLike[str] | None
    model: str | None
    revision: str | None
    trust_remote_code: bool
    logits: bool
    device: str


@dataclass(frozen=True)
class Browsed:
    """A run, its features, and the language model of its store."""

    run: Run
    features: Features
    language: "StoreLanguage"

    def summary(self) -> dict[str, Any]:
        """What pictures show of all its features."""
        return summary_payload(self.features)

    def as_json(self) -> dict[str, Any]:
        """Its part of the command's result."""
        summary = self.summary()
        return {
            "features": len(self.features.shown),
            **{key: summary[key] for key in ("rows", "silent", "dense")},
            "texts": self.language.tokenizer is not None,
            "logits": self.features.promoted is not None,
        }


class Browser:
    """Encodes runs, and keeps what several of one store have in common."""

    def __init__(self, look: Look, on_event: OnEvent) -> None:
        self._look, self._on_event = look, on_event
        self._stores: dict[StorePlace, Store] = {}
        self._languages: dict[str, StoreLanguage] = {}

    def browse(self, runs: Sequence[Run]) -> list[Browsed]:
        """The first of `runs`, at least one and as many as a page has room for the features of."""
        device = choose_device(self._look.device)
        found: list[Browsed] = []
        left = _MOST_FEATURES
        for run in runs:
            if found and run.n > left:
                break
            on = run_on_store(RunFolder(run.path), self._look.store, self._stores, self._on_event)
            store = on.store
            sae = load(run.path, device)
            if store.d != sae.d:
                raise StoreError(
                    f"{store.path}: its rows have d = {store.d}, {run.path} takes {sae.d}; give "
                    "the store that it was trained on, or one of the same model and layer"
                )
            language = self._language(store)
            seen = SeenRows(store, self._look.rows)
            codes = encode_rows(sae, seen, on.bound, self._on_event)
            features = Features(sae, seen, codes, _MOST_FEATURES)
            if self._look.logits:
                language.promote(features, device)
            found.append(Browsed(run, features, language))
            left -= len(features.shown)
        return found

    def amounts(self) -> Iterator[Amounts]:
        """Numbers of examples to try, the most first."""
        yield from _AMOUNTS

    def details(self, browsed: Sequence[Browsed], amounts: Amounts) -> tuple[list[Any], list[str]]:
        """What the page holds of each run's features, and what it tells of how it was made."""
        details, notes = [], []
        for one in browsed:
            features = one.features
            texts = _texts(one, amounts)
            log = read_log(RunFolder(one.run.path).metrics)
            enabled = enabled_at(log, features.m)
            vocabulary = one.language.vocabulary()
            details.append(
                {
                    "texts": texts_payload(texts, features.seen.rows_per_context),
                    "features": features_payload(features, texts, enabled, amounts),
                    "lens": lens_payload(features, vocabulary),
                }
            )
            if one.language.note and one.language.note not in notes:
                notes.append(one.language.note)
            if len(features.shown) < features.m:
                notes.append(
                    f"{len(features.shown):,} of {features.m:,} features are shown with "
                    "examples, drawn evenly from the most to the least frequent."
                )
        return details, notes

    def write_neuronpedia(self, one: Browsed, folder: str | Path) -> Path:
        """Write a run's features for Neuronpedia. Raises ExportError where there are no texts, or
        the folder is taken."""
        if one.language.tokenizer is None:
            raise ExportError(
                "--neuronpedia: needs the tokens' text, and their tokenizer is not here; name the "
                "language model with --model"
            )
        target = free_folder(folder)
        texts = _texts(one, _NEURONPEDIA)
        assert texts is not None, "where there is a tokenizer, there are tokens"
        files = neuronpedia_files(
            one.features, texts, one.language.vocabulary(), _place(one), _NEURONPEDIA
        )
        write_folder(target, dict(files))
        return Path(folder)

    def _language(self, store: Store) -> "StoreLanguage":
        from cpsae.stages.store_language import StoreLanguage  # brings transformers along

        if store.identity not in self._languages:
            look = self._look
            self._languages[store.identity] = StoreLanguage(
                store, look.model, look.revision, look.trust_remote_code, self._on_event
            )
        return self._languages[store.identity]


def _texts(one: Browsed, amounts: Amounts) -> Texts | None:
    features = one.features
    if not features.seen.has_tokens:
        return None
    wanted = np.union1d(features.contexts(amounts), features.judged())
    return gather_texts(features.seen, wanted, one.language.say)


def _place(one: Browsed) -> Place:
    origin = Origin.of_run(RunFolder(one.run.path).read_config())
    return Place(model_name(origin).rpartition("/")[2].lower(), f"{origin.layer}-{one.run.preset}")
