"""What a store is of: the dotted keys that a continued extraction must agree on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cpsae.config import ExtractSettings
from cpsae.config.resolve import differences, flatten
from cpsae.corpus import DEFAULT_SPLIT, Corpus, identity
from cpsae.corpus.survey import existing
from cpsae.errors import CorpusError, DifferentSettingsError, StoreError
from cpsae.extraction.provenance import differences_of_content
from cpsae.store import Manifest
from cpsae.store.bucket import Bucket
from cpsae.store.origin import read_provenance
from cpsae.tensors import dtype_name
from cpsae.workers import Worker

_OF_THE_CORPUS = ("dataset", "split", "text_", "ids_", "messages_", "encoding", "special_tokens")


@dataclass(frozen=True)
class Computing:
    """How rows are computed, with every `auto` decided."""

    device: torch.device
    dtype: torch.dtype
    attention: str
    batch_contexts: int

    def identity(self) -> dict[str, Any]:
        """Its share of a store's identity: the kind of device, not its index."""
        return {
            "device": self.device.type,
            "dtype": dtype_name(self.dtype),
            "attention": self.attention,
            "batch_contexts": self.batch_contexts,
        }


def settings_identity(settings: ExtractSettings) -> dict[str, Any]:
    """The share that the settings alone decide."""
    return {
        "hook": settings.hook,
        **{
            key: getattr(settings, key)
            for key in ("layer", "tokens", "keep_bos", "vectors", "seed", "store_dtype")
        },
    }


def corpus_identity(settings: ExtractSettings, split: str | None = None) -> dict[str, Any]:
    """The share of the corpus, as dotted keys. split: the one that is read; None: the one asked
    for. Raises CorpusError where a local corpus is gone."""
    found = flatten(identity(Corpus.from_settings(settings), split))
    return found | ({"special_tokens": True} if settings.special_tokens else {})


def refuse_other(
    settings: ExtractSettings,
    bucket: Bucket,
    manifest: Manifest,
    known: Mapping[str, Any],
    worker: Worker,
    remedy: str,
) -> None:
    """Raises DifferentSettingsError, listing each, where the store was begun otherwise; StoreError
    where no extraction began it.

    `known` is what has been worked out beside the settings; a key that is in neither (an `auto`,
    a corpus that is gone while the tokens are whole) is taken to agree. Only the leading worker
    looks at the corpus, as only it reads text. `remedy` says what to do.
    """
    if manifest.origin != "extract":
        raise StoreError(
            f"{settings.store}: was made from arrays, not by an extraction; choose another --store"
        )
    asked = {**settings_identity(settings), **_explicit(settings), **known}
    begun = {"split": DEFAULT_SPLIT, **manifest.identity}
    if worker.is_leader:
        asked |= _corpus_asked(settings, manifest, begun)
    different = [
        text.replace("revision: ", "dataset_revision: ", 1)
        if text.startswith("revision: ")
        else text
        for text in differences(begun, {**begun, **asked})
    ]
    if worker.is_leader and manifest.tokens_complete:
        provenance = read_provenance(bucket)
        different += differences_of_content(provenance, settings) if provenance else []
    if different:
        raise DifferentSettingsError(
            f"{settings.store}: was begun with other settings ({'; '.join(different)}); {remedy}",
            different,
        )


def _corpus_asked(
    settings: ExtractSettings, manifest: Manifest, begun: Mapping[str, Any]
) -> dict[str, Any]:
    known = manifest.dataset
    was_local = known is not None and known.id == settings.dataset and "dataset.files" in begun
    try:
        if was_local:  # what is gone could be taken for the name of one on the hub
            existing(Corpus.from_settings(settings))
        corpus = corpus_identity(settings)
    except CorpusError:
        if not manifest.tokens_complete:
            raise
        return {}
    # A corpus of another sort has other keys: then all of the old ones must go.
    gone = {key: None for key in begun if key.startswith(_OF_THE_CORPUS)}
    split = settings.split or begun["split"]  # not asked for: whichever it was
    return {**gone, **corpus, "split": split}


def _explicit(settings: ExtractSettings) -> dict[str, Any]:
    given = {
        "dtype": settings.dtype,
        "attention": settings.attention,
        "batch_contexts": settings.batch_contexts,
        "device": settings.device.partition(":")[0],
    }
    return {key: value for key, value in given.items() if value not in ("auto", None)}
