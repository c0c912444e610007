"""The documents of a corpus in reading order, with what was read to get them, and what identifies
the corpus."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

from cpsae.corpus.corpus import Corpus
from cpsae.corpus.dataset_splits import DEFAULT
from cpsae.corpus.document import Document, is_blank
from cpsae.corpus.files import FileRead, NotTextError, read_source
from cpsae.corpus.folder import LeftOut, walk
from cpsae.corpus.hub import HubReading
from cpsae.corpus.survey import existing, files, left_out_line, summary, survey
from cpsae.errors import CorpusError

_NOT_TEXT = "not text (it holds NUL bytes)"


class Reading(Protocol):
    """A corpus, opened: what it is known to hold, and its documents."""

    @property
    def split(self) -> str:
        """The one that is read."""
        ...

    @property
    def commit(self) -> str | None:
        """The commit, branch or tag that a data set on the hub is read at."""
        ...

    @property
    def is_one_document(self) -> bool:
        """Whether it is a single local text."""
        ...

    def documents(self) -> Iterator[Document]:
        """The documents, always the same ones in the same order; holds one at a time.

        Those without a visible character, id or message are left out. Raises CorpusError, at the
        latest when asked for the document in question, for what cannot be read, and where there is
        no document at all.
        """
        ...

    def summary(self) -> Iterator[str]:
        """What is read and left out, line by line."""
        ...

    def surprises(self) -> Iterator[str]:
        """What only reading showed, line by line."""
        ...

    def but_left_out(self) -> str:
        """What was not read, in brackets, to go behind an error; "" where nothing was left out."""
        ...


def open_corpus(corpus: Corpus) -> Reading:
    """Find out what a corpus holds. Raises CorpusError where it is missing or unreadable, or where
    a setting asks for what is not there or cannot apply."""
    return LocalReading(corpus) if corpus.is_local else HubReading(corpus)


class LocalReading:
    """A local file or folder."""

    commit = None

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.root = existing(corpus)
        self.survey = survey(corpus)
        self.split = self.survey.split
        self.is_one_document = self.survey.is_one_document
        self.reads: list[FileRead] = []
        """Of the last time that documents were asked for."""
        self._no_text: list[LeftOut] = []

    @property
    def left_out(self) -> list[LeftOut]:
        """Of this reading and of what came before it."""
        return [*self.survey.left_out, *self._no_text]

    def documents(self) -> Iterator[Document]:
        """See `Reading`."""
        self.reads, self._no_text = [], []
        found = False
        for document in self._all():
            if not is_blank(document):
                found = True
                yield document
        if not found:
            raise CorpusError(
                f"dataset {self._corpus.dataset}: holds no text; expected at least one document "
                f"that is not blank{self.but_left_out()}"
            )

    def summary(self) -> Iterator[str]:
        """See `Reading`."""
        yield from (f"dataset {self._corpus.dataset}: {line}" for line in summary(self.survey))

    def surprises(self) -> Iterator[str]:
        """See `Reading`."""
        if self._no_text:
            yield f"dataset {self._corpus.dataset}: {left_out_line(self._no_text)}"
        replaced = [read for read in self.reads if read.replaced]
        if replaced:
            count = sum(read.replaced for read in replaced)
            yield (
                f"dataset {self._corpus.dataset}: {count:,} characters of {files(len(replaced))} "
                f"could not be decoded and became U+FFFD; the first is {replaced[0].source.path}"
            )

    def _all(self) -> Iterator[Document]:
        for source in self.survey.sources:
            read, documents = read_source(source, self._corpus.field, self._corpus.encoding)
            self.reads.append(read)
            try:
                yield from documents
            except NotTextError:
                if source.path == self.root:
                    raise CorpusError(
                        f"{source.path}: is {_NOT_TEXT}; expected text, or records in .jsonl, "
                        ".json, .csv, .parquet or .arrow; name the --encoding of UTF-16 without a "
                        "byte-order mark"
                    ) from None
                self.reads.pop()
                self._no_text.append(LeftOut(source.name, _NOT_TEXT))

    def but_left_out(self) -> str:
        """See `Reading`."""
        return f" ({left_out_line(self.left_out)})" if self.left_out else ""


def documents(corpus: Corpus) -> Iterator[Document]:
    """The documents of a corpus; see `Reading.documents`."""
    return open_corpus(corpus).documents()


def identity(corpus: Corpus, split: str | None = None) -> dict[str, object]:
    """What makes two corpora the same: the name on the hub, or all files' names and sizes, and how
    they are read. `split`: the one that is read; None: the one asked for, if any was.

    The path of a local corpus does not count, so that it may be moved. Raises CorpusError where
    a local corpus is gone; nothing is asked of the hub.
    """
    split = split or corpus.split
    found: dict[str, object] = {f"{corpus.field.kind}_field": corpus.field.name}
    if corpus.is_local:
        found["dataset"] = _names_and_sizes(corpus)
        if split not in (None, DEFAULT):
            found["split"] = split
    else:
        found |= {"dataset": corpus.dataset, "split": split, "revision": corpus.revision}
    named = {"dataset_config": corpus.configuration, "encoding": corpus.encoding}
    return found | {key: value for key, value in named.items() if value is not None}


def _names_and_sizes(corpus: Corpus) -> dict[str, object]:
    root = existing(corpus)
    digest = hashlib.sha256()
    paths, _ = walk(root)
    try:
        for file in paths:
            name = file.name if file == root else file.relative_to(root).as_posix()
            # A name cannot hold a NUL: no two lists of names and sizes give the same bytes.
            digest.update(b"%s\0%d\0" % (name.encode("utf-8", "replace"), file.stat().st_size))
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return {"files": len(paths), "sha256": digest.hexdigest()}
