"""Documents to token ids, in batches and with bounded memory."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import numpy as np

TokenIds = np.ndarray[Any, np.dtype[np.int32]]

_FRAGMENT = 2**16
"""Characters after which a document may be cut for the tokenizer."""
_LONG_LINE = 2**17
"""Characters without a fitting line end after which a space is good enough."""
_FIRST_BATCH, _LARGEST_BATCH = 2**16, 2**18
"""Characters tokenised at once. Batches double, so that little is read in vain where few tokens
are needed."""
_BATCH_TEXTS = 2048

_LINE_END = re.compile(r"\S\n(?=\S)")
_SPACE = re.compile(r"\w(?= \w)")
_CANDIDATES = 4
"""Places that are tried before the rest of a document is left whole."""
_WINDOW = 200
"""Characters on either side of a cut that are tokenised to check it."""


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def __call__(
        self,
        text: list[str],
        *,
        add_special_tokens: bool,
        return_attention_mask: bool,
        return_token_type_ids: bool,
        verbose: bool,
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that packing puts in: in front of a piece, and between two documents."""

    bos: int | None
    separator: int | None


class TokenRun(NamedTuple):
    """Token ids (n,) int32 of a document or of the next part of it; n may be 0."""

    starts_document: bool
    ids: TokenIds


def find_special_tokens(tokenizer: Any) -> SpecialTokens:
    """BOS, else CLS; EOS, else SEP; None where a tokenizer has neither."""

    def first(*names: str) -> int | None:
        ids = (getattr(tokenizer, name, None) for name in names)
        return next((int(token) for token in ids if token is not None), None)

    return SpecialTokens(
        bos=first("bos_token_id", "cls_token_id"),
        separator=first("eos_token_id", "sep_token_id"),
    )


def tokenise(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[TokenRun]]:
    """Batches of token runs, in order. The ids do not depend on how documents fall into batches.

    Reads ahead one batch at most: about as many characters as were read before, up to 2**18, or
    one document.
    """
    batch: list[str] = []
    starts: list[bool] = []
    size, limit = 0, _FIRST_BATCH
    for document in documents:
        first = True
        for text in fragments(document, tokenizer):
            batch.append(text)
            starts.append(first)
            first = False
            size += len(text)
            if size >= limit or len(batch) >= _BATCH_TEXTS:
                yield _encode(batch, starts, tokenizer)
                batch, starts, size = [], [], 0
                limit = min(2 * limit, _LARGEST_BATCH)
    if batch:
        yield _encode(batch, starts, tokenizer)


def fragments(document: str, tokenizer: Tokenizer) -> Iterator[str]:
    """Cut a long document at single line ends, so that its parts give the tokens of the whole.

    One giant text is slow to tokenise and takes a hundred bytes and more a token. A line end
    between two visible characters is a word of its own to the usual pre-tokenizers (GPT-2, Llama
    3), and no token goes across it where there are none (Gemma); in a run of several line ends
    GPT-2 parts the last one from the others, so none is cut there. A text of 2**17 characters
    without such a place is cut before a space between two letters or digits. Each cut is checked
    on the text around it; where a tokenizer disagrees (Llama 2 puts a space in front of every
    text), the rest of the document is left whole.
    """
    start = 0
    while len(document) - start > _FRAGMENT:
        cut = _find_cut(document, start, tokenizer)
        if cut is None:
            break
        yield document[start:cut]
        start = cut
    if start < len(document):
        yield document[start:] if start else document


def _find_cut(document: str, start: int, tokenizer: Tokenizer) -> int | None:
    far = min(start + _LONG_LINE, len(document))
    places = chain(
        _LINE_END.finditer(document, start + _FRAGMENT, far), _SPACE.finditer(document, far)
    )
    for place in islice(places, _CANDIDATES):
        cut = place.end()
        before, after = document[max(0, cut - _WINDOW) : cut], document[cut : cut + _WINDOW]
        whole, first, second = _ids([before + after, before, after], tokenizer)
        if whole == first + second:
            return cut
    return None


def _encode(texts: list[str], starts: list[bool], tokenizer: Tokenizer) -> list[TokenRun]:
    ids = _ids(texts, tokenizer)
    return [
        TokenRun(first, np.array(tokens, dtype=np.int32))
        for first, tokens in zip(starts, ids, strict=True)
    ]


def _ids(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    # verbose=False: no warning that a text is longer than the model's window; it will be cut.
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
