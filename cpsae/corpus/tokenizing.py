"""Documents to token ids, in batches and with bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from cpsae.corpus.document import Chat, Document, Ids, LongText
from cpsae.corpus.text_tokenizer import Encoded, TextTokenizer, TokenIds
from cpsae.corpus.windows import Sizes, tokens_in_windows
from cpsae.events import Note, OnEvent, ignore

_FIRST_BATCH, _LARGEST_BATCH = 2**16, 2**18
"""Characters tokenised at once. Batches double, so that little is read in vain where few tokens
are needed."""
_BATCH_TEXTS = 2048
_MUCH_AT_ONCE = 2**22
"""Characters of which there is a warning where they cannot be cut."""


class TokenRun(NamedTuple):
    """Token ids (n,) int32 of a document or of the next part of it; n may be 0."""

    starts_document: bool
    ids: TokenIds


def tokenise(
    documents: Iterable[Document],
    tokenizer: TextTokenizer,
    sizes: Sizes | None = None,
    on_event: OnEvent = ignore,
) -> Iterator[list[TokenRun]]:
    """Batches of token runs, in order. The ids do not depend on how documents fall into batches.
    There is a warning where a long stretch of a text has to be tokenised at once.

    Reads ahead one batch at most: about as many characters as were read before, up to 2**18, or
    one document of fewer than a window's. Raises CorpusError for ids that the model has not.
    """
    sizes = sizes or Sizes()
    batch, long = _Batch(tokenizer), _Long(tokenizer, sizes, on_event)
    for document in documents:
        if isinstance(document, LongText) or (
            isinstance(document, str) and len(document) > sizes.window
        ):
            yield batch.take()
            first = True
            for ids in long.tokens(document):
                yield [TokenRun(first, ids)]
                first = False
        else:
            batch.add(document)
            if batch.is_full:
                yield batch.take()
    yield batch.take()


class _Batch:
    """Short documents, that are tokenised together."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._limit = _FIRST_BATCH
        self._texts: list[str] = []
        self._runs: list[TokenRun] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        return self._size >= self._limit or len(self._texts) + len(self._runs) >= _BATCH_TEXTS

    def add(self, document: str | Ids | Chat) -> None:
        if isinstance(document, str):
            self._texts.append(document)
            self._size += len(document)
            return
        self._encode()
        of = self._tokenizer.of_ids if isinstance(document, Ids) else self._tokenizer.of_chat
        self._runs.append(TokenRun(True, of(document)))  # type: ignore[arg-type]
        self._size += len(self._runs[-1].ids)

    def take(self) -> list[TokenRun]:
        """Everything that was added, in order."""
        self._encode()
        if self._size >= self._limit:
            self._limit = min(2 * self._limit, _LARGEST_BATCH)
        taken, self._runs, self._size = self._runs, [], 0
        return taken

    def _encode(self) -> None:
        if self._texts:
            self._runs += [TokenRun(True, ids) for ids in self._tokenizer.encode(self._texts)]
            self._texts = []


class _Long:
    """Long texts in windows; of a tokenizer that cannot tell where its tokens lie, at once."""

    def __init__(self, tokenizer: TextTokenizer, sizes: Sizes, on_event: OnEvent) -> None:
        self._tokenizer = tokenizer
        self._sizes = replace(sizes, between_words=tokenizer.is_unigram)
        self._on_event = on_event
        self._has_warned = False

    def tokens(self, document: str | LongText) -> Iterator[TokenIds]:
        """Run by run."""
        pieces = (
            document.pieces
            if isinstance(document, LongText)
            else _slices(document, self._sizes.window)
        )
        if self._tokenizer.has_offsets:
            return tokens_in_windows(pieces, self._encode_with_places, self._sizes)
        text = "".join(pieces)
        self._warn([text])
        return iter(self._tokenizer.encode([text]))

    def _encode_with_places(self, texts: list[str]) -> list[Encoded]:
        self._warn(texts)
        return self._tokenizer.encode_with_places(texts)

    def _warn(self, texts: list[str]) -> None:
        longest = max(map(len, texts), default=0)
        if longest < _MUCH_AT_ONCE or self._has_warned:
            return
        self._has_warned = True
        self._on_event(
            Note(
                f"a stretch of {longest:,} characters can be cut nowhere with the same tokens, so "
                "it is tokenised at once, with some 200 bytes of memory a character; if that is "
                "too much, divide the text into documents",
                "warning",
            )
        )


def _slices(text: str, length: int) -> Iterator[str]:
    return (text[start : start + length] for start in range(0, len(text), length))
