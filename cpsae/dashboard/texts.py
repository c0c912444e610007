"""The text behind rows: contexts that examples are of, each once, and what their tokens say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpsae.dashboard.rows import Ints, SeenRows

_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Texts:
    """Contexts, numbered anew."""

    first_position: int
    """Of a context, the position of its first row."""
    contexts: dict[int, int]
    """From a context's number among all that were seen to its number here."""
    first_rows: Ints
    """The first row of each."""
    tokens: list[list[int]]
    """Of each context, the places of its tokens in `vocabulary`."""
    vocabulary: list[str]
    """What the tokens say, the commonest first."""
    ids: list[int]
    """Their ids."""

    def word(self, context: int, position: int) -> int:
        """The place in `vocabulary` of a token, by the context's number among all."""
        return self.tokens[self.contexts[context]][position]


def gather_texts(seen: SeenRows, wanted: Ints, say: Callable[[int], str]) -> Texts | None:
    """The contexts of these numbers; None where the store holds no tokens. say: the text of one
    token id."""
    contexts = seen.store.manifest.contexts
    if contexts is None:
        return None
    among = set(wanted.tolist())
    kept, firsts = [], []
    for number, (first, _, tokens) in enumerate(seen.texts()):
        if number in among:
            kept.append((number, tokens))
            firsts.append(first)
    flat = np.concatenate([tokens for _, tokens in kept]) if kept else np.empty(0, np.int32)
    ids, counts = np.unique(flat, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    place = {int(ids[o]): number for number, o in enumerate(order)}
    return Texts(
        contexts.first_position,
        {number: new for new, (number, _) in enumerate(kept)},
        np.array(firsts, dtype=np.int64),
        [[place[token] for token in tokens.tolist()] for _, tokens in kept],
        [say(int(ids[o])) for o in order],
        [int(ids[o]) for o in order],
    )


def sayer(tokenizer: Any) -> Callable[[int], str]:
    """What gives the text of one token id, of a tokenizer of transformers; of pieces of a letter,
    which are no text, the tokenizer's name; without a tokenizer the id."""
    if tokenizer is None:
        return lambda token: f"#{token}"

    def say(token: int) -> str:
        text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        if text and _REPLACEMENT not in text:
            return text
        return str(tokenizer.convert_ids_to_tokens(token) or f"#{token}")

    return say
