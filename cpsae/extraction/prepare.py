"""What the leading worker does before the first chunk: tokens, self-test, an empty store."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cpsae.config import ExtractSettings
from cpsae.corpus import (
    Corpus,
    PackedTokens,
    PackingPlan,
    Reading,
    TooSmallError,
    commit_of,
    open_corpus,
    pack,
)
from cpsae.errors import CorpusError, SettingsError
from cpsae.events import Note, OnEvent
from cpsae.extraction.identity import (
    Computing,
    corpus_identity,
    settings_identity,
)
from cpsae.extraction.machine import device_record
from cpsae.extraction.preflight import memory_errors
from cpsae.models import (
    ModelDescription,
    ModelSource,
    TruncatedModel,
    self_test,
    tokenizer_fingerprint,
)
from cpsae.software import software_versions
from cpsae.store import Manifest
from cpsae.store.layout import (
    ContextRecord,
    DatasetRecord,
    HookRecord,
    ModelRecord,
    TokenizerRecord,
    contexts_per_chunk,
)
from cpsae.tensors import dtype_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SAMPLE_TOKENS = 48
_CPU_BATCH = 8


def plan_of(settings: ExtractSettings) -> PackingPlan:
    """How many contexts and rows the settings ask for."""
    return PackingPlan(
        tokens=settings.tokens,
        vectors=settings.vectors,
        keep_bos=settings.keep_bos,
        seed=settings.seed,
    )


def choose_batch(settings: ExtractSettings, d: int, device: torch.device) -> int:
    """Contexts a forward pass: what was asked for, else a whole chunk on a GPU, a few on a CPU.

    Raises SettingsError where the number asked for does not divide the contexts of a chunk.
    """
    rows = plan_of(settings).rows_per_context
    per_chunk = contexts_per_chunk(rows, d, settings.store_dtype)
    if settings.batch_contexts is None:
        return per_chunk if device.type == "cuda" else min(_CPU_BATCH, per_chunk)
    if per_chunk % settings.batch_contexts:
        raise SettingsError(
            f"batch_contexts {settings.batch_contexts} does not divide the {per_chunk} contexts "
            "of a chunk; take a power of two up to that"
        )
    return settings.batch_contexts


def open_reading(
    settings: ExtractSettings, on_event: OnEvent, begun: Manifest | None = None
) -> Reading:
    """Find out what the corpus holds, say so, and see that there is a document in a local one.
    begun: a store that has no tokens yet, whose commit is taken again. Raises CorpusError."""
    corpus = Corpus.from_settings(settings)
    if not corpus.is_local:
        commit = begun.dataset.revision if begun and begun.dataset else None
        corpus = replace(corpus, revision=commit or commit_of(corpus) or corpus.revision)
    reading = open_corpus(corpus)
    for line in reading.summary():
        on_event(Note(line))
    if corpus.is_local:
        for _ in reading.documents():
            break
    return reading


def pack_corpus(
    settings: ExtractSettings,
    reading: Reading,
    tokenizer: Any,
    embedding_rows: int,
    on_event: OnEvent,
) -> PackedTokens:
    """Read, tokenise, pack, split and shuffle the corpus. Raises CorpusError; where there is too
    little text, it names what was left out."""
    try:
        packed = pack(
            reading.documents,
            tokenizer,
            plan_of(settings),
            on_event,
            f"dataset {settings.dataset}",
            embedding_rows=embedding_rows,
            special_tokens=settings.special_tokens,
            one_document=reading.is_one_document,
        )
    except TooSmallError as error:
        raise CorpusError(f"{error}{reading.but_left_out()}") from error
    for line in reading.surprises():
        on_event(Note(line, "warning"))
    return packed


def check_model(
    model: TruncatedModel,
    source: ModelSource,
    context: "npt.NDArray[np.int32]",
    tokenizer: Any,
    on_event: OnEvent,
) -> None:
    """Run one context (T,) through the truncated and the whole model, and say what it looks like;
    tokenizer: to show its text, if it is at hand.

    Raises ModelError where they disagree or memory is short, NonFiniteError for a NaN or Inf.
    """
    if tokenizer is not None:
        sample = tokenizer.decode(context[:_SAMPLE_TOKENS])
        on_event(Note(f"first context begins: {sample!r}", "detail"))
    with memory_errors(source.name, model.device):
        result = self_test(model, source, torch.from_numpy(context).long()[None])
    agreement = (
        "equal bit for bit"
        if result.bit_equal
        else f"equal to {result.largest_difference:.1e} of the largest value"
    )
    on_event(Note(f"self-test: truncated and whole model are {agreement}"))
    on_event(
        Note(
            f"norms of one context: first position {result.first_norm:.4g}, median of the others "
            f"{result.median_norm:.4g} (ratio {result.first_ratio:.1f}), {result.n_outliers} "
            "positions over 10 times the median"
        )
    )


def of_another_site(begun: Manifest, settings: ExtractSettings, fingerprint: str) -> Manifest:
    """The manifest of a site's empty store, from that of another site in the same pass."""
    assert begun.model is not None, "an extraction records its model"
    [site] = settings.sites
    return begun.model_copy(
        update={
            "identity": {
                **begun.identity,
                **settings_identity(settings),
                "model": fingerprint,
            },
            "hook": HookRecord(layer=site.layer, name=site.point),
            "model": begun.model.model_copy(update={"fingerprint": fingerprint}),
            "tokens_complete": False,
            "complete": False,
        }
    )


def new_manifest(
    settings: ExtractSettings,
    description: ModelDescription,
    computing: Computing,
    fingerprint: str,
    tokenizer: Any,
    reading: Reading,
    packed: PackedTokens,
    threads: int | None,
) -> Manifest:
    """Everything there is to say about the store of one site that is about to be filled."""
    [site] = settings.sites
    sizes = geometry(settings, description.d)
    return Manifest(
        **sizes,
        identity={
            **settings_identity(settings),
            **corpus_identity(settings, reading.split),
            **computing.identity(),
            "model": fingerprint,
        },
        contexts=ContextRecord(
            tokens=settings.tokens,
            rows=plan_of(settings).rows_per_context,
            first_position=0 if settings.keep_bos else 1,
            batch_contexts=computing.batch_contexts,
        ),
        hook=HookRecord(layer=site.layer, name=site.point),
        model=ModelRecord(
            id=settings.model,
            revision=description.commit or settings.revision,
            architecture=description.architecture,
            n_layers=description.n_layers,
            fingerprint=fingerprint,
            dtype=dtype_name(computing.dtype),
            attention=computing.attention,
        ),
        tokenizer=TokenizerRecord(
            fingerprint=tokenizer_fingerprint(tokenizer),
            vocabulary=len(tokenizer),
            bos=packed.bos_token_id,
            separator=packed.separator_token_id,
        ),
        dataset=DatasetRecord(
            id=settings.dataset,
            revision=reading.commit,
            split=reading.split,
            text_field=settings.field[0],
            documents=packed.documents,
            held_out=packed.split,
        ),
        device=device_record(computing.device, threads),
        software=software_versions(),
    )


def geometry(settings: ExtractSettings, d: int) -> dict[str, Any]:
    """Sizes of the store, which are known before any text is read."""
    plan = plan_of(settings)
    rows = plan.rows_per_context
    return {
        "origin": "extract",
        "vectors": settings.vectors,
        "evaluation_vectors": plan.evaluation_rows,
        "d": d,
        "rows_per_chunk": rows * contexts_per_chunk(rows, d, settings.store_dtype),
        "store_dtype": settings.store_dtype,
        "seed": settings.seed,
    }
