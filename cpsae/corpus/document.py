"""A document, in each of the forms in which a corpus holds one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LongText:
    """A text that is read as it is used; its pieces, joined, are the document."""

    pieces: Iterator[str]
    """Can be gone through once, and only before the next document is asked for."""


@dataclass(frozen=True)
class Ids:
    """A document that is tokenised already."""

    ids: np.ndarray[Any, np.dtype[np.int64]]
    """Token ids (n,), as the record has them: not checked against any vocabulary."""
    where: str
    """Which record it is, for an error."""


@dataclass(frozen=True)
class Chat:
    """A conversation, which the tokenizer's chat template makes a text of."""

    messages: list[dict[str, Any]]
    """Each with its `role` and `content`."""
    where: str
    """Which record it is, for an error."""


Document = str | LongText | Ids | Chat


def is_blank(document: Document) -> bool:
    """Whether there is nothing in a document (told without copying it, as strip would). A long text
    is taken to hold something."""
    if isinstance(document, str):
        return not document or document.isspace()
    if isinstance(document, Ids):
        return len(document.ids) == 0
    return isinstance(document, Chat) and not document.messages
