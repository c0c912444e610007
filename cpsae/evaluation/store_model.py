"""The whole language model that a store was made with, found again and checked to be it."""

import numpy as np
import torch

from cpsae.config.extraction import Site
from cpsae.errors import ModelError, StoreError
from cpsae.evaluation.rows import held_out_part
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.evaluation.through_model import context_numbers
from cpsae.events import Note, OnEvent
from cpsae.models import ModelSource, TruncatedModel, describe, find_source, load_tokenizer
from cpsae.models.spliced import SplicedModel
from cpsae.store import Store
from cpsae.store.layout import HookRecord, ModelRecord
from cpsae.tensors import TORCH_DTYPES

OF_THE_STORE = "store"
"""What stands for the model that the store names; a folder of this name is ./store."""


def find_model(
    store: Store, model: str, revision: str | None = None, trust_remote_code: bool = False
) -> ModelSource:
    """Where the model is, by its name, folder or .gguf file, or `store` for the one that the store
    names, at its commit. Raises ModelError where there is none; StoreError where the store is of no
    model."""
    context_numbers(store)
    record, _ = _records(store)
    if model == OF_THE_STORE:
        model, revision = record.id, revision or record.revision
    return find_source(model, revision, trust_remote_code)


def load_model(
    store: Store,
    source: ModelSource,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    site: Site | None = None,
) -> SplicedModel:
    """The whole model in `dtype`, by default the one that the store's rows were computed in,
    spliced at `site`, by default where the store's rows are from.

    Raises ModelError where it is not the model of the store, which its weights say (those that the
    store's rows hang on are loaded for that alone, in the store's dtype, and freed), or predicts no
    next token.
    """
    record, hook = _records(store)
    own = Site(hook.layer, hook.name)
    as_stored = TORCH_DTYPES[record.dtype]
    _refuse_other_sizes(store, source, own)
    truncated = TruncatedModel.load(source, [own], as_stored, device)
    if truncated.fingerprint(own.layer) != record.fingerprint:
        raise ModelError(
            f"model {source.name}: is not the one that {store.path} was made with ({record.id}): "
            f"its weights up to layer {own.layer} are others; give that one, or make a store with "
            "this one and name it with --store"
        )
    del truncated
    return SplicedModel.load(source, site or own, dtype or as_stored, device)


def special_tokens(source: ModelSource, model: SplicedModel, on_event: OnEvent) -> SpecialTokens:
    """BOS, EOS and PAD of the model's tokenizer; where there is none, of its config."""
    try:
        tokenizer = load_tokenizer(source)
    except ModelError as error:
        text = f"{error}; BOS, EOS and PAD are taken from its config"
        on_event(Note(text, "warning"))
        tokenizer = None
    return SpecialTokens.of_model(tokenizer, model.config)


def _records(store: Store) -> tuple[ModelRecord, HookRecord]:
    model, hook = store.manifest.model, store.manifest.hook
    if model is None or hook is None:
        raise StoreError(
            f"{store.path}: does not say which model its rows are of; leave --model out"
        )
    return model, hook


def _refuse_other_sizes(store: Store, source: ModelSource, site: Site) -> None:
    description = describe(source, sites=[site])
    if description.d != store.d:
        raise ModelError(
            f"model {source.name}: has d = {description.d}, the rows of {store.path} have "
            f"{store.d}; give the model that it was made with"
        )
    part = held_out_part(store)
    largest = max(int(np.max(part.tokens(chunk.contexts), initial=0)) for chunk in part.chunks)
    if largest >= description.embedding_rows:
        raise ModelError(
            f"model {source.name}: has {description.embedding_rows:,} tokens, {store.path} holds "
            f"token {largest:,}; give the model that it was made with"
        )
