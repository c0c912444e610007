"""The language model behind a store's rows, as far as a report needs it: the words that its tokens
are, and what its end makes of a direction."""

from collections.abc import Callable
from typing import Any

import torch

from cpsae.at_hand import model_at_hand
from cpsae.config.extraction import Site
from cpsae.dashboard.features import Features
from cpsae.dashboard.lens import logit_lens
from cpsae.dashboard.texts import sayer
from cpsae.errors import CpsaeError, ModelError
from cpsae.evaluation.store_model import OF_THE_STORE, load_model
from cpsae.events import Note, OnEvent
from cpsae.models import (
    ModelSource,
    find_source,
    load_tokenizer,
    tokenizer_fingerprint,
)
from cpsae.store import Store


class StoreLanguage:
    """Found when it is first asked for; `note` says what is missing, and how to get it."""

    def __init__(
        self,
        store: Store,
        model: str | None,
        revision: str | None,
        trust_remote_code: bool,
        on_event: OnEvent,
    ) -> None:
        """model: a hub name, a folder, a .gguf file, or `store` for the one that the store names;
        None for that one where it is on this machine. Raises ModelError where a model that is
        asked for is not there, has no tokenizer, or not the store's."""
        self._store, self._on_event = store, on_event
        self._asked = model is not None
        self.note: str | None = None
        self.source = self._find(model, revision, trust_remote_code)
        self.tokenizer = self._load() if self.source else None
        self.say: Callable[[int], str] = sayer(self.tokenizer)

    def vocabulary(self) -> list[str]:
        """What each token id says."""
        return [self.say(token) for token in range(len(self.tokenizer))] if self.tokenizer else []

    def promote(self, features: Features, device: torch.device) -> None:
        """Find which output tokens each shown feature promotes; where the model's weights are not
        at hand, or are not the store's, a line says so."""
        record = self._store.manifest.model
        if self.source is None or self.tokenizer is None or record is None:
            return
        if not self._asked and not model_at_hand(record.id, record.revision, weights=True):
            self._on_event(Note("logit lens: left out, the model's weights are not here"))
            return
        self._on_event(Note("logit lens: loading the language model"))
        last = Site(record.n_layers - 1, "resid_post")
        try:
            model = load_model(self._store, self.source, device, site=last)
            directions = features.w_dec[list(features.shown)]
            features.promoted = logit_lens(model, directions, len(self.tokenizer))
        except CpsaeError as error:
            if self._asked:
                raise
            self._on_event(Note(f"logit lens: left out; {error}", "warning"))

    def _find(
        self, model: str | None, revision: str | None, trust_remote_code: bool
    ) -> ModelSource | None:
        record = self._store.manifest.model
        if self._store.manifest.contexts is None or record is None:
            self.note = "The store was made from arrays: there is no text behind its rows."
            return None
        if model is None:
            place = model_at_hand(record.id, record.revision)
            if place is None:
                self.note = (
                    "Made without a tokenizer, so tokens are shown as their ids; "
                    "cpsae report RUN --model NAME takes the one of the language model."
                )
                return None
            # of a model in the hub's cache only the tokenizer may be there: not for find_source
            folder = ModelSource(record.id, "folder", str(place.resolve()))
            return folder if place.is_dir() else find_source(str(place))
        if model == OF_THE_STORE:
            model, revision = record.id, revision or record.revision
        return find_source(model, revision, trust_remote_code)

    def _load(self) -> Any:
        assert self.source is not None, "asked for where there is one"
        record = self._store.manifest.tokenizer
        try:
            tokenizer = load_tokenizer(self.source)
            if record is not None and tokenizer_fingerprint(tokenizer) != record.fingerprint:
                raise ModelError(
                    f"model {self.source.name}: its tokenizer is not the one that "
                    f"{self._store.path} was made with; give --model that one"
                )
        except ModelError as error:
            if self._asked:
                raise
            self.note = f"Tokens are shown as their ids: {error}."
            return None
        return tokenizer
