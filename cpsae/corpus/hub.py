"""Data sets of the Hugging Face hub, streamed: only what is read is downloaded."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cpsae.corpus.corpus import Corpus
from cpsae.corpus.dataset_splits import DEFAULT, choose_split
from cpsae.corpus.document import Document, is_blank
from cpsae.errors import CorpusError, causes
from cpsae.hub import quiet

_LONGEST_REASON = 200
_OR_LOCAL = "or give a local file or folder"


class HubReading:
    """A data set on the hub; see `Reading`. Code that the data set ships is never run unless
    `trust_remote_code` is set (and `datasets` is old enough to run any)."""

    is_one_document = False

    def __init__(self, corpus: Corpus) -> None:
        """Raises CorpusError where it is missing, gated, out of reach, or has no such configuration
        or split."""
        self._corpus = corpus
        self.commit = corpus.revision
        self.split, self._there = corpus.split or DEFAULT, [corpus.split or DEFAULT]
        with self._explained():
            self._records: Iterable[Any] | None = self._first_load()

    def documents(self) -> Iterator[Document]:
        """Its records' documents, in its order."""
        records, self._records = self._records, None
        found = False
        with self._explained():
            if records is None:  # another reading
                records = _load(self._corpus, self.split)
            for number, record in enumerate(records, 1):
                where = f"dataset {self._corpus.dataset}, record {number}"
                document = self._corpus.field.of_record(record, where)
                if not is_blank(document):
                    found = True
                    yield document
        if not found:
            raise CorpusError(
                f"dataset {self._corpus.dataset}: holds no text; expected at least one document "
                "that is not blank"
            )

    def summary(self) -> Iterator[str]:
        """The split and the commit."""
        line = f"dataset {self._corpus.dataset}: reads split {self.split}"
        if len(self._there) > 1:
            line += f" of {', '.join(self._there)}"
        yield line + (f", at {self.commit}" if self.commit else "")

    def surprises(self) -> Iterator[str]:
        """None: every record is read."""
        return iter(())

    def but_left_out(self) -> str:
        """Nothing is."""
        return ""

    def _first_load(self) -> Any:
        """The records of the split asked for; else of the one that there is, or of `train`."""
        try:
            return _load(self._corpus, self.split)
        except ValueError as error:
            there = _splits_named(error)
            if self._corpus.split is not None or not there:
                raise
        self.split = choose_split(None, there, f"dataset {self._corpus.dataset}")
        self._there = there
        return _load(self._corpus, self.split)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        # datasets raises what its many readers raise, so no list of types would do.
        try:
            yield
        except CorpusError:
            raise
        except Exception as error:
            corpus = self._corpus
            raise CorpusError(f"dataset {corpus.dataset}: {explain(error, corpus)}") from error


def commit_of(corpus: Corpus) -> str | None:
    """The commit that a data set's branch or tag (default: main) is at now; None where the hub is
    not to be asked (HF_HUB_OFFLINE). Raises CorpusError as `read_hub` does."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return HfApi().dataset_info(corpus.dataset, revision=corpus.revision).sha
    except Exception as error:  # of the hub's client or of its HTTP library, whichever it is
        raise CorpusError(f"dataset {corpus.dataset}: {explain(error, corpus)}") from error


def explain(error: Exception, corpus: Corpus) -> str:
    """What went wrong with a data set on the hub, and what to do, in one line.

    datasets keeps the hub's own error as a cause at some places and only quotes it at others:
    so both the types and the text are looked at.
    """
    types = {cause.__name__ for link in causes(error) for cause in type(link).__mro__}
    text = str(error)
    if "GatedRepoError" in types or "gated dataset" in text:
        return f"is gated: accept its terms on the hub and run `hf auth login`, {_OR_LOCAL}"
    if "RevisionNotFoundError" in types or re.search(r"Revision '.*' doesn't exist", text):
        return f"has no revision '{corpus.revision}' on the hub; check dataset_revision"
    splits = _splits_named(error)
    if splits is not None:
        there = ", ".join(splits) or "none"
        return f"has no split '{corpus.split}' (there are: {there}); name one with --split"
    configurations = re.search(r"(?:among the available configs|Available): \[(.*?)\]", text)
    if configurations is not None:
        there = configurations[1].replace("'", "")
        lacks = f"has no configuration '{corpus.configuration}' (there are: {there})"
        if corpus.configuration is None:
            lacks = f"has several configurations ({there})"
        return f"{lacks}; name one with --dataset-config"
    if types & {"RepositoryNotFoundError", "DatasetNotFoundError", "HFValidationError"}:
        return (
            "is no local path, and no data set on the hub that you may read; check the name, run "
            f"`hf auth login` if it is private, {_OR_LOCAL}"
        )
    if types & {"ConnectionError", "OfflineModeIsEnabled", "TransportError", "TimeoutError"}:
        return (
            "is no local path, and the hub cannot be reached; check the network and "
            f"HF_HUB_OFFLINE, {_OR_LOCAL}"
        )
    if "trust_remote_code" in text or "scripts are no longer supported" in text:
        return (
            "needs code that its repository ships, which is not run unless trust_remote_code is "
            "set and `datasets` is older than 4; give a local copy as .jsonl or .parquet"
        )
    reason = " ".join(text.split())[:_LONGEST_REASON] or "no reason given"
    return f"cannot be read from the hub ({type(error).__name__}: {reason}); mend that, {_OR_LOCAL}"


def _splits_named(error: Exception) -> list[str] | None:
    """The splits that `datasets` lists where it has not the one asked for; None: it is not that."""
    found = re.search(r"Available splits: \[(.*)\]|Should be one of \[(.*)\]", str(error))
    return None if found is None else re.findall(r"'([^']*)'", found[1] or found[2] or "")


def _load(corpus: Corpus, split: str) -> Any:
    import datasets

    # From version 4 on nothing is ever run; before, silence would mean asking on the terminal.
    asks = int(datasets.__version__.split(".")[0]) < 4
    trust = {"trust_remote_code": corpus.trust_remote_code} if asks else {}
    named = [] if corpus.configuration is None else [corpus.configuration]
    with _quiet():
        return datasets.load_dataset(
            corpus.dataset, *named, split=split, revision=corpus.revision, streaming=True, **trust
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute the bars and the retry log of the hub's client within: an error says it in one line."""
    import datasets

    log, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        datasets.logging.set_verbosity(log)
        if bars:
            datasets.enable_progress_bars()
