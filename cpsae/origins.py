"""What a store came from, as it is recorded: the files of its text and of its model."""

from cpsae.config.base import Record
from cpsae.file_content import FileRecord


class LeftOutRecord(Record):
    """A file of a corpus that was not read."""

    name: str
    reason: str


class CorpusRecord(Record):
    """What was read of a corpus, and what was not."""

    split: str
    configuration: str | None
    commit: str | None
    """Of a data set on the hub."""
    files: list[FileRecord] = []
    """Local ones that were read, as far as they were needed."""
    formats: dict[str, str] = {}
    """Of each of them, what it was read as."""
    left_out: list[LeftOutRecord] = []


class Provenance(Record):
    """Of a store."""

    format_version: int = 1
    corpus: CorpusRecord | None
    """None where the tokens are older than this record."""
    model: list[FileRecord] | None
    """Of a local model."""
