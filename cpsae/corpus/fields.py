"""The field of a record that holds the document: text, token ids, or the messages of a chat."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cpsae.corpus.document import Chat, Document, Ids
from cpsae.errors import CorpusError

FieldKind = Literal["text", "ids", "messages"]

_LARGEST_ID = 2**31 - 1

_EXPECTED: dict[FieldKind, str] = {
    "text": "text",
    "ids": "a list of token ids",
    "messages": "a list of messages, each with its role and content,",
}


@dataclass(frozen=True)
class Field:
    """Which field of each record is the document, and as what."""

    name: str = "text"
    kind: FieldKind = "text"

    @property
    def option(self) -> str:
        """The option that names it."""
        return f"--{self.kind}-field"

    def of_record(self, record: Any, where: str) -> Document:
        """The document of one record; "" where it is null. Raises CorpusError, which names
        `where`, for a record that is no object, has no such field or no document in it."""
        if not isinstance(record, dict):
            raise CorpusError(
                f"{where}: expected an object with a field '{self.name}', found {kind_of(record)}"
            )
        if self.name not in record:
            raise self.missing(where, list(record))
        return self.of_value(record[self.name], where)

    def of_value(self, value: Any, where: str) -> Document:
        """The document that the field's value is; "" for null. Raises CorpusError."""
        if value is None:
            return ""
        if self.kind == "text" and isinstance(value, str):
            return _encodable(value)
        if self.kind == "ids" and isinstance(value, list | np.ndarray):
            return Ids(_whole_numbers(value, where), where)
        if self.kind == "messages" and isinstance(value, list):
            return Chat([_message(message, where) for message in value], where)
        raise self.wrong(where, kind_of(value))

    def missing(self, where: str, fields: list[str]) -> CorpusError:
        """The error where there is no such field among `fields`."""
        there = ", ".join(map(str, fields)) or "none"
        return CorpusError(
            f"{where}: has no field '{self.name}' (there are: {there}); name one with {self.option}"
        )

    def wrong(self, where: str, found: str) -> CorpusError:
        """The error where the field holds something else."""
        return CorpusError(
            f"{where}: expected {_EXPECTED[self.kind]} in the field '{self.name}', found {found}; "
            f"name another with {self.option}{self._other_option(found)}"
        )

    def _other_option(self, found: str) -> str:
        if self.kind == "text" and "list" in found:
            return " (token ids with --ids-field, chats with --messages-field)"
        return ", or mend the record"


def named_twice(name: str, field: str) -> CorpusError:
    """The error for a table in which it cannot be told which column is meant."""
    return CorpusError(f"{name}: has two columns named '{field}'; rename one of them")


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def _encodable(text: str) -> str:
    """JSON may escape half a surrogate pair, which no tokenizer takes: it becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _whole_numbers(value: Any, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if isinstance(value, list):
        for id_ in value:
            if not isinstance(id_, int) or isinstance(id_, bool):
                shown = id_ if isinstance(id_, float) else kind_of(id_)
                raise CorpusError(
                    f"{where}: expected token ids, which are whole numbers, found {shown} among "
                    "them; mend the record"
                )
    largest = max(value, default=0, key=abs) if isinstance(value, list) else value.max(initial=0)
    if abs(int(largest)) > _LARGEST_ID:
        raise CorpusError(f"{where}: expected token ids, found {largest}")
    return np.asarray(value, dtype=np.int64)


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise CorpusError(
            f"{where}: expected messages with a role and a content, found {kind_of(message)}"
        )
    if "role" not in message or "content" not in message:
        raise CorpusError(
            f"{where}: expected messages with a role and a content, found one with "
            f"{', '.join(map(str, message)) or 'neither'}; rename its fields"
        )
    # a table has every field in every message; where it is null, the record had none
    return {key: v for key, v in message.items() if v is not None or key == "content"}
