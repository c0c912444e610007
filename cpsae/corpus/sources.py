"""Where text comes from: a data set as the user names it, and its documents in reading order."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpsae.config import ExtractSettings
from cpsae.corpus.files import SUFFIXES, is_blank, list_files, read_file
from cpsae.corpus.hub import read_hub
from cpsae.errors import CorpusError

_PATH_START = re.compile(r"[/.~]|[A-Za-z]:\\")


@dataclass(frozen=True)
class Corpus:
    """A data set on the hub, or a local file or folder."""

    dataset: str
    """As the user gave it."""
    revision: str | None = None
    """Branch, tag or commit; of data sets on the hub only."""
    split: str = "train"
    """Of data sets on the hub only."""
    text_field: str = "text"
    """Of a hub record, .jsonl line or parquet row."""
    trust_remote_code: bool = False

    @classmethod
    def from_settings(cls, settings: ExtractSettings) -> "Corpus":
        """The corpus that an extraction is asked to read."""
        return cls(
            dataset=settings.dataset,
            revision=settings.dataset_revision,
            split=settings.split,
            text_field=settings.text_field,
            trust_remote_code=settings.trust_remote_code,
        )

    @property
    def path(self) -> Path:
        """The local path that `dataset` is, where it is one."""
        return Path(self.dataset).expanduser()

    @property
    def is_local(self) -> bool:
        """Whether `dataset` is a path: it exists, or cannot be meant as the name of a data set."""
        if "://" in self.dataset:
            return False
        return (
            _PATH_START.match(self.dataset) is not None
            or self.dataset.count("/") > 1
            or self.dataset.lower().endswith(SUFFIXES)
            or self.path.exists()
        )


def documents(corpus: Corpus) -> Iterator[str]:
    """The texts of a corpus, one after another, always in the same order; holds one at a time.

    Documents without a visible character are left out. Raises CorpusError, at the latest when
    asked for the document in question: a path or data set that is missing or unreadable, a
    malformed line, a missing field, a field that is not text, or no text at all.
    """
    found = False
    for text in _local(corpus) if corpus.is_local else read_hub(corpus):
        if not is_blank(text):
            found = True
            yield text
    if not found:
        raise CorpusError(
            f"dataset {corpus.dataset}: holds no text; expected at least one document that is "
            "not blank"
        )


def identity(corpus: Corpus) -> dict[str, object]:
    """What makes two corpora the same: the name on the hub, or all files' names and sizes.

    The path of a local corpus does not count, so that it may be moved. Raises CorpusError where
    a local corpus is gone; nothing is asked of the hub.
    """
    if not corpus.is_local:
        return {
            "dataset": corpus.dataset,
            "split": corpus.split,
            "text_field": corpus.text_field,
            "revision": corpus.revision,
        }
    root = _existing(corpus)
    digest = hashlib.sha256()
    files = list_files(root)
    try:
        for file in files:
            name = file.name if file == root else file.relative_to(root).as_posix()
            # A name cannot hold a NUL: no two lists of names and sizes give the same bytes.
            digest.update(b"%s\0%d\0" % (name.encode("utf-8", "replace"), file.stat().st_size))
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot be read ({error.strerror})") from error
    found = {"files": len(files), "sha256": digest.hexdigest()}
    return {"dataset": found, "text_field": corpus.text_field}


def _local(corpus: Corpus) -> Iterator[str]:
    root = _existing(corpus)
    for file in list_files(root):
        yield from read_file(file, corpus.text_field, alone=file == root)


def _existing(corpus: Corpus) -> Path:
    if corpus.path.exists():
        return corpus.path
    raise CorpusError(
        f"dataset {corpus.dataset}: there is no such file or folder; check the path, or give the "
        "name of a data set on the hub, like monology/pile-uncopyrighted"
    )
