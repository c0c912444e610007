"""`provenance.json` in a store: the files that its rows came from, text and model, with what shows
whether they are still the same. It stands beside the manifest, and a store can do without it."""

from collections.abc import Iterator

from pydantic import ValidationError

from cpsae.config import ExtractSettings
from cpsae.config.base import Record
from cpsae.corpus import Corpus
from cpsae.corpus.provenance import CorpusRecord, changed_content
from cpsae.errors import ModelError, StoreError
from cpsae.file_content import FileRecord
from cpsae.models.files import changed_files
from cpsae.store.bucket import Bucket

KEY = "provenance.json"
_NAMES_SHOWN = 3


class Provenance(Record):
    """What a store came from."""

    format_version: int = 1
    corpus: CorpusRecord | None
    """None where the tokens are older than this record."""
    model: list[FileRecord] | None
    """Of a local model."""


def read_provenance(bucket: Bucket) -> Provenance | None:
    """What is known of a store's origin; None for a store of an earlier version. Raises StoreError
    where it is damaged."""
    try:
        data = bytes(bucket.read(KEY))
    except FileNotFoundError:
        return None
    try:
        return Provenance.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(
            f"{bucket.name}: its {KEY} is damaged, or of a later version of cpsae; remove that "
            "file to go on without knowing whether text and model are still the same"
        ) from error


def write_provenance(bucket: Bucket, provenance: Provenance) -> None:
    """Whole or not at all. Raises DiskError."""
    bucket.write(KEY, provenance.model_dump_json(indent=1).encode())


def differences_of_content(provenance: Provenance, settings: ExtractSettings) -> Iterator[str]:
    """What text and model files hold something else than they did, a line each."""
    corpus = Corpus.from_settings(settings)
    changed = changed_content(provenance.corpus, corpus) if provenance.corpus else []
    if changed:
        yield f"dataset.content: {_names(changed)} changed"
    changed = _changed_model(provenance, settings) or []
    if changed:
        yield f"model: {_names(changed)} changed"


def is_model_known(provenance: Provenance | None, settings: ExtractSettings) -> bool:
    """Whether the model's files tell by themselves that it is the same, or another one; else its
    weights have to be looked at."""
    known = provenance or Provenance(corpus=None, model=None)
    return _changed_model(known, settings) is not None


def _changed_model(provenance: Provenance, settings: ExtractSettings) -> list[str] | None:
    try:
        return changed_files(settings.model, provenance.model)
    except OSError as error:
        raise ModelError(
            f"model {settings.model}: cannot be read ({error.strerror}); check its files"
        ) from error


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
