"""The documents of a corpus in reading order, and what identifies it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cpsae.corpus.corpus import Corpus
from cpsae.corpus.files import is_blank, list_files, read_file
from cpsae.corpus.hub import read_hub
from cpsae.errors import CorpusError


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
