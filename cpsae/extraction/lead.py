"""What the leading worker does beside its share of the chunks: the tokens are settled, the model is
tested, empty stores are made, and in the end they are marked complete."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt
import torch

from cpsae.corpus import Corpus, PackedTokens
from cpsae.corpus.provenance import record_corpus
from cpsae.errors import StoreError
from cpsae.events import Note, OnEvent
from cpsae.extraction.machine import choose_threads
from cpsae.extraction.plan import Plan, Target
from cpsae.extraction.prepare import (
    check_model,
    new_manifest,
    of_another_site,
    open_reading,
    pack_corpus,
)
from cpsae.extraction.provenance import is_model_known
from cpsae.models import TruncatedModel, load_tokenizer
from cpsae.models.files import model_files
from cpsae.origins import Provenance
from cpsae.store import Manifest, Store, StoreWriter
from cpsae.store.folders import holds_store, home_at
from cpsae.store.origin import read_provenance, write_provenance
from cpsae.store.reader import open_bucket

_Tokens = dict[str, npt.NDArray[np.int32]]
"""Contexts (contexts, T) of each part, by its name."""


@contextmanager
def locked(plan: Plan, on_event: OnEvent) -> Iterator[None]:
    """Be the one writer of all stores of a plan, and of the folder that they are in."""
    with ExitStack() as stack:
        if len(plan.targets) > 1:
            stack.enter_context(home_at(plan.place).lock("folder of stores", on_event))
        for target in plan.targets:
            stack.enter_context(target.home.lock("store", on_event))
        yield


def set_old_aside(targets: list[Target], on_event: OnEvent) -> None:
    """Rename the stores that are there, for an extraction that begins afresh."""
    for target in targets:
        if holds_store(target.home):
            on_event(Note(f"{target.path} is kept as {target.home.set_aside('store')}"))


def prepare(plan: Plan, on_event: OnEvent) -> TruncatedModel | None:
    """Make the stores that have no tokens yet, with their tokens; the model that was loaded for
    it, if any. Raises CorpusError, ModelError, NonFiniteError, DiskError."""
    new = [t for t in plan.targets if not (t.read() and t.known.tokens_complete)]
    if not new:
        return None
    settled = [target for target in plan.targets if target not in new]
    settled += [target for target in plan.beside if target.known.tokens_complete]
    threads = choose_threads(plan.computing.device, plan.worker)
    if threads is not None:
        torch.set_num_threads(threads)
    if settled:  # the tokens of all sites are the same
        store = open_bucket(settled[0].home, allow_partial=True)
        tokens = _tokens_of(store)
        model = load_model(plan)
        for target in settled:  # before anything is made beside them
            if target.site.layer <= model.layer:
                known = {"model": model.fingerprint(target.site.layer)}
                target.refuse_other(known, plan.worker)
        check_model(model, plan.source, tokens["training"][0], None, on_event)
        for target in new:
            fingerprint = model.fingerprint(target.site.layer)
            manifest = of_another_site(store.manifest, target.settings, fingerprint)
            _create(target, manifest, tokens, read_provenance(store.bucket))
        return model
    reading = open_reading(plan.settings, on_event, new[0].manifest)
    model_record = model_files(plan.settings.model)
    tokenizer = load_tokenizer(plan.source)
    model = load_model(plan)
    model.probe(plan.settings.tokens)  # before a corpus is tokenised for nothing
    rows = plan.description.embedding_rows
    packed = pack_corpus(plan.settings, reading, tokenizer, rows, on_event)
    check_model(model, plan.source, packed.training[0], tokenizer, on_event)
    provenance = Provenance(
        corpus=record_corpus(reading, Corpus.from_settings(plan.settings)), model=model_record
    )
    for target in new:
        manifest = new_manifest(
            target.settings,
            plan.description,
            plan.computing,
            model.fingerprint(target.site.layer),
            tokenizer,
            reading,
            packed,
            threads,
        )
        _create(target, manifest, _parts(packed), provenance)
    return model


def load_model(plan: Plan) -> TruncatedModel:
    """Raises ModelError."""
    return TruncatedModel.load(
        plan.source,
        plan.settings.sites,
        plan.computing.dtype,
        plan.computing.device,
        plan.computing.attention,
    )


def complete(plan: Plan, on_event: OnEvent) -> None:
    """Set the completion marks. Raises StoreError where chunks vanished meanwhile."""
    for target in plan.targets:
        _renew_provenance(target)
        if not target.known.complete:
            writer = StoreWriter(target.home, target.known)
            writer.finish()
            target.manifest = writer.manifest
        target.home.remove_fellows()
    on_event(Note(f"{plan.place} is complete"))


def _renew_provenance(target: Target) -> None:
    """The model was found to be the same by its weights: note its files as they are now."""
    provenance = read_provenance(target.home)
    if not is_model_known(provenance, target.settings):
        corpus = provenance.corpus if provenance else None
        model = model_files(target.settings.model)
        write_provenance(target.home, Provenance(corpus=corpus, model=model))


def _create(
    target: Target, manifest: Manifest, tokens: _Tokens, provenance: Provenance | None
) -> None:
    target.home.tidy()
    writer = StoreWriter.create(target.home, manifest)
    if provenance is not None:
        write_provenance(writer.bucket, provenance)
    writer.write_tokens(tokens)
    target.manifest = writer.manifest


def _parts(packed: PackedTokens) -> _Tokens:
    return {"training": packed.training, "evaluation": packed.evaluation}


def _tokens_of(store: Store) -> _Tokens:
    parts = [part for part in (store.training, store.evaluation) if part is not None]
    if len(parts) < 2:
        raise StoreError(f"{store.bucket.name}: holds nothing out; use --fresh")
    return {part.name: part.tokens(range(part.part.n_contexts)) for part in parts}
