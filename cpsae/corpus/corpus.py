"""A data set as the user names it: on the hub, or a local file or folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from cpsae.config import ExtractSettings
from cpsae.corpus.fields import Field
from cpsae.corpus.formats import SUFFIXES

_PATH_START = re.compile(r"[/.~]|[A-Za-z]:\\")


@dataclass(frozen=True)
class Corpus:
    """A data set on the hub, or a local file or folder."""

    dataset: str
    """As the user gave it."""
    revision: str | None = None
    """Branch, tag or commit; of data sets on the hub only."""
    split: str | None = None
    """Of records; None: the only one, else `train`."""
    field: Field = Field()
    """Of each record."""
    trust_remote_code: bool = False
    configuration: str | None = None
    """Of a data set that has several; None: its default."""
    encoding: str | None = None
    """Of text, .jsonl, .json, .csv and .tsv without a byte-order mark; None: UTF-8."""

    @classmethod
    def from_settings(cls, settings: ExtractSettings) -> "Corpus":
        """The corpus that an extraction is asked to read."""
        return cls(
            dataset=settings.dataset,
            revision=settings.dataset_revision,
            split=settings.split,
            field=Field(*settings.field),
            trust_remote_code=settings.trust_remote_code,
            configuration=settings.dataset_config,
            encoding=settings.encoding,
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
