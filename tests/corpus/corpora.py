"""Reading a corpus in a test, and writing one."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cpsae.corpus import Corpus, Field, Reading, documents, open_corpus
from cpsae.corpus.document import Chat, Document, Ids
from cpsae.errors import CorpusError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def corpus_at(path: Path | str, text_field: str = "text", **settings: Any) -> Corpus:
    settings.setdefault("field", Field(text_field))
    return Corpus(str(path), **settings)


def plain(document: Document) -> Any:
    """What a document holds."""
    if isinstance(document, str):
        return document
    if isinstance(document, Ids):
        return document.ids.tolist()
    return document.messages if isinstance(document, Chat) else "".join(document.pieces)


def read(path: Path | str, **settings: Any) -> list[Any]:
    return [plain(document) for document in documents(corpus_at(path, **settings))]


def opened(path: Path | str, **settings: Any) -> Reading:
    return open_corpus(corpus_at(path, **settings))


def left_out(path: Path | str, **settings: Any) -> dict[str, str]:
    """The files left out, with the reasons, once everything was read."""
    reading = opened(path, **settings)
    list(reading.documents())
    return dict(reading.left_out)  # type: ignore[attr-defined]


def error(path: Path | str, **settings: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    suffix = path.suffix if path.suffix in COMPRESS else ""
    path.write_bytes(COMPRESS[suffix](data))
    return path


def texts(*words: str) -> list[dict[str, str]]:
    return [{"text": word} for word in words]
