"""Long texts to tokens in constant memory: in overlapping windows, joined where both have the same
tokens.

What a tokenizer makes of a place depends on the text around it, and on no more of it than a few
words for the usual text. So in the middle of an overlap, where both windows have come to the same
tokens at the same places, these are the tokens of the whole text as well. It is not so in a stretch
that looks the same everywhere (300,000 times the letter a): there the tokens may hang on where it
began, or ends. So windows are joined only between two words of the pre-tokenizer, or where the
tokens around are of several kinds. Unigram models are cut between words alone: of two ways with the
same pieces in another order, rounding decides, over all that came before in a word.

A stretch where no such place is found goes to the tokenizer whole: it is the one thing that memory
grows with.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cpsae.corpus.text_tokenizer import Encoded, TokenIds
from cpsae.errors import CorpusError

Encode = Callable[[list[str]], list[Encoded]]

_RESTARTS = (0, 7, 31)
"""Tokens of the overlap at which the right window is begun anew, where the two do not agree."""


@dataclass(frozen=True)
class Sizes:
    """How a long text is cut. The defaults are for use; tests take smaller ones."""

    window: int = 2**16
    """Characters."""
    overlap: int = 2**12
    """Characters that two neighbours share."""
    agreeing: int = 16
    """Tokens, half of them on either side of a cut, that two windows must have in common."""
    kinds: int = 6
    """Different ids among these, where the cut is not between two words."""
    between_words: bool = False
    """Whether to cut nowhere else."""
    most_at_once: int = 4
    """Windows that are tokenised together; the first batch is one, and each the double of the
    last, so that little is read in vain where few tokens are needed."""


@dataclass(frozen=True)
class _Window:
    start: int
    """Character of the document."""
    text: str
    tokens: Encoded
    """With places in the document."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokens_in_windows(
    pieces: Iterator[str], encode: Encode, sizes: Sizes | None = None
) -> Iterator[TokenIds]:
    """The tokens of the text that the pieces make up, run by run. Reads ahead a batch of windows.

    Raises CorpusError where a stretch that was tokenised whole contradicts what came before it.
    """
    sizes = sizes or Sizes()
    left: _Window | None = None
    first = 0  # of the left window's tokens, those before it were given already
    waiting: list[_Window] = []
    is_merged = False
    for right in _windows(pieces, encode, sizes):
        if left is None:
            left = right
            continue
        cut = None if waiting else _find_cut(left, first, right, encode, sizes)
        if cut is not None:
            at, right, begin = cut
            yield left.tokens.ids[first:at]
            left, first, is_merged = right, begin, False
            continue
        waiting.append(right)
        # as much again as there is, so that a long stretch is not tokenised too often
        if not is_merged or waiting[-1].end - left.end >= len(left.text):
            left, first = _merge(left, first, waiting, encode, sizes)
            waiting, is_merged = [], True
    if left is not None:
        if waiting:
            left, first = _merge(left, first, waiting, encode, sizes)
        yield left.tokens.ids[first:]


def _windows(pieces: Iterator[str], encode: Encode, sizes: Sizes) -> Iterator[_Window]:
    texts, count, start = _overlapping(pieces, sizes), 1, 0
    while batch := [text for _, text in zip(range(count), texts, strict=False)]:
        for text, tokens in zip(batch, encode(batch), strict=True):
            yield _placed(start, text, tokens)
            start += len(text) - sizes.overlap
        count = min(2 * count, sizes.most_at_once)


def _overlapping(pieces: Iterator[str], sizes: Sizes) -> Iterator[str]:
    held, size, is_last = [], 0, False
    while not is_last:
        while size <= sizes.window and not is_last:
            piece = next(pieces, None)
            is_last = piece is None
            held.append(piece or "")
            size += len(held[-1])
        text = "".join(held)
        while len(text) > sizes.window:
            yield text[: sizes.window]
            text = text[sizes.window - sizes.overlap :]
        held, size = [text], len(text)
    yield text


def _placed(start: int, text: str, tokens: Encoded) -> _Window:
    return _Window(
        start, text, tokens._replace(starts=tokens.starts + start, ends=tokens.ends + start)
    )


def _find_cut(
    left: _Window, first: int, right: _Window, encode: Encode, sizes: Sizes
) -> tuple[int, _Window, int] | None:
    """Where to go from the left window to the right one: the number of the token in the left one,
    the right one (perhaps begun anew), and the number in that; None where they do not agree."""
    found = _agreement(left, first, right, sizes)
    if found is not None:
        return found[0], right, found[1]
    inside = np.flatnonzero(left.tokens.starts >= right.start)
    for number in _RESTARTS:
        if number >= len(inside):
            break
        start = int(left.tokens.starts[inside[number]])
        text = right.text[start - right.start :]
        again = _placed(start, text, encode([text])[0])
        found = _agreement(left, first, again, sizes)
        if found is not None:
            return found[0], again, found[1]
    return None


def _agreement(left: _Window, first: int, right: _Window, sizes: Sizes) -> tuple[int, int] | None:
    """The numbers of the token, in both windows, before which to cut: nearest to the middle of the
    overlap, among those with enough equal tokens before and behind them."""
    ours = _keys(left.tokens, max(first, _begin(left.tokens, right.start)), len(left.tokens.ids))
    theirs = _keys(right.tokens, 0, int(np.searchsorted(right.tokens.starts, left.end)))
    half, run, last = sizes.agreeing // 2, 0, -2
    middle = (right.start + left.end) // 2
    best, distance = None, left.end
    for key, number in ours.items():
        other = theirs.get(key)
        run = run + 1 if other is not None and other == last + 1 else int(other is not None)
        last = -2 if other is None else other
        if run < sizes.agreeing or other is None:
            continue
        cut, other_cut = number - half + 1, other - half + 1
        away = abs(int(left.tokens.starts[cut]) - middle)
        if away < distance and _is_safe(left.tokens, cut, right.tokens, other_cut, sizes):
            best, distance = (cut, other_cut), away
    return best


def _is_safe(left: Encoded, cut: int, right: Encoded, other: int, sizes: Sizes) -> bool:
    between_words = left.words[cut - 1] != left.words[cut]
    if between_words and right.words[other - 1] != right.words[other]:
        return True
    half = sizes.agreeing // 2
    return (
        not sizes.between_words
        and len(set(left.ids[cut - half : cut + half].tolist())) >= sizes.kinds
    )


def _keys(tokens: Encoded, begin: int, end: int) -> dict[tuple[int, int, int, int], int]:
    """The numbers of tokens by place and id; several that share a character are counted."""
    keys: dict[tuple[int, int, int, int], int] = {}
    before, count, first = (-1, -1), 0, begin
    places = (tokens.starts, tokens.ends)
    while 0 < first < end and all(place[first] == place[first - 1] for place in places):
        first -= 1
    values = zip(*(c[first:end].tolist() for c in (tokens.ids, *places)), strict=True)
    for number, (id_, start, stop) in enumerate(values, first):
        count = count + 1 if (start, stop) == before else 0
        before = (start, stop)
        if number >= begin:
            keys[start, stop, count, id_] = number
    return keys


def _begin(tokens: Encoded, start: int) -> int:
    inside = np.flatnonzero(tokens.starts >= start)
    return int(inside[0]) if len(inside) else len(tokens.ids)


def _merge(
    left: _Window, first: int, waiting: list[_Window], encode: Encode, sizes: Sizes
) -> tuple[_Window, int]:
    """One window of all these, and the number in it of the left one's token `first`."""
    parts, end = [left.text], left.end
    for window in waiting:
        parts.append(window.text[end - window.start :])
        end = window.end
    text = "".join(parts)
    whole = _placed(left.start, text, encode([text])[0])
    if first == 0:
        return whole, 0
    half = min(first, sizes.agreeing // 2)
    around = list(_keys(left.tokens, first - half, first + sizes.agreeing // 2))
    places = _keys(whole.tokens, 0, int(np.searchsorted(whole.tokens.starts, left.end)))
    begin = places.get(around[half], -1)
    if [places.get(key) for key in around] != list(range(begin - half, begin - half + len(around))):
        raise CorpusError(
            f"a document cannot be cut near character {left.tokens.starts[first]:,}: its tokens "
            "there hang on text far behind; cut the document there yourself"
        )
    return whole, begin
