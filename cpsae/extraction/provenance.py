"""Whether the text and the model files that a store's rows came from are still the same."""

from collections.abc import Iterator

from cpsae.config import ExtractSettings
from cpsae.corpus import Corpus
from cpsae.corpus.provenance import changed_content
from cpsae.errors import ModelError
from cpsae.models.files import changed_files
from cpsae.origins import Provenance

_NAMES_SHOWN = 3


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
