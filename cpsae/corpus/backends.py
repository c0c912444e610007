"""What a fast tokenizer of transformers runs on, called directly: faster than through transformers
where only ids are wanted, and with special tokens that text cannot spell."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_HIDDEN = "\U0010fffe{}\U0010fffe"
"""What no text spells: the name of a special token that text may not become."""
_CALLED = ("__call__", "_encode_plus", "_batch_encode_plus")
_ITS_OWN = "transformers.tokenization_utils"


def is_called_plainly(tokenizer: Any) -> bool:
    """Whether calling a fast tokenizer does no more than call its backend: a class of its own may
    put something in front of a text, or want something beside it."""
    homes = (
        next((kind.__module__ for kind in type(tokenizer).__mro__ if name in vars(kind)), None)
        for name in _CALLED
    )
    return all(home is None or home.startswith(_ITS_OWN) for home in homes)


@contextmanager
def whole_texts(backend: Any, *, special_tokens: bool) -> Iterator[None]:
    """Within, texts are neither cut nor padded, and special tokens that they spell are text, but
    with `special_tokens`. Afterwards the backend is as it was."""
    before = backend.truncation, backend.padding, backend.encode_special_tokens
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = not special_tokens
    try:
        yield
    finally:
        truncation, padding, backend.encode_special_tokens = before
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def without_tokens(backend: Any, texts: Sequence[str]) -> Any:
    """A copy in which no text becomes these tokens, though they are words of the vocabulary."""
    from tokenizers import Tokenizer

    content = json.loads(backend.to_str())
    for text in texts:
        _rename(content, text, _HIDDEN.format(text))
    content |= {"truncation": None, "padding": None, "post_processor": None}
    return Tokenizer.from_str(json.dumps(content))


def _rename(content: dict[str, Any], old: str, new: str) -> None:
    """Another name for a token of a tokenizer's JSON, with the same id. Merges that make the old
    one go: what they join stays apart."""
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        if old in vocabulary:
            vocabulary[new] = vocabulary.pop(old)
    else:
        model["vocab"] = [[new if piece == old else piece, score] for piece, score in vocabulary]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _touches(pair, old)]
    if model.get("unk_token") == old:
        model["unk_token"] = new
    for token in content.get("added_tokens", []):
        if token["content"] == old:
            token["content"] = new


def _touches(pair: Any, piece: str) -> bool:
    left, right = pair if isinstance(pair, list) else pair.split(" ", 1)
    return piece in (left, right, left + right)
