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

from cpsae.corpus.text_tokenizer import Encoded, TokenIds
from cpsae.errors import CorpusError

Encode = Callable[[list[str]], list[Encoded]]

_Keys = dict[tuple[int, int, int, int], int]
"""Tokens' numbers by what makes them the same: characters, earlier ones that share them, id."""

_RESTARTS = (0, 7, 31)
"""Tokens of the overlap at which the right window is begun anew, where the two do not agree."""


@dataclass(frozen=True)
class Sizes:
    """How a long text is cut. The defaults are for use; tests take smaller ones."""

    window: int = 2**16
    """Characters."""
    overlap: int = 2**11
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

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens.ids)

    def place(self, number: int) -> tuple[int, int]:
        """A token's characters in the document."""
        begin, end = self.tokens.place(number)
        return self.start + begin, self.start + end

    def around(self, character: int, reach: int) -> range:
        """The numbers of the tokens around a character of the document."""
        number = self.tokens.at(character - self.start) or 0
        return range(max(0, number - reach), min(self.n_tokens, number + reach))

    def is_new_word(self, number: int) -> bool:
        """Whether a token is of another word than the one before it."""
        return self.tokens.word(number - 1) != self.tokens.word(number)

    def kinds(self, begin: int, end: int) -> int:
        """How many different tokens there are among these."""
        return len(set(self.tokens.ids[begin:end].tolist()))


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
            yield _Window(start, text, tokens)
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


def _find_cut(
    left: _Window, first: int, right: _Window, encode: Encode, sizes: Sizes
) -> tuple[int, _Window, int] | None:
    """Where to go from the left window to the right one: the number of the token in the left one,
    the right one (perhaps begun anew), and the number in that; None where they do not agree."""
    found = _agreement(left, first, right, sizes)
    if found is not None:
        return found[0], right, found[1]
    begin = _first_from(left, right.start)
    for number in (begin + skipped for skipped in _RESTARTS):
        if number >= left.n_tokens:
            break
        start, _ = left.place(number)
        text = right.text[start - right.start :]
        again = _Window(start, text, encode([text])[0])
        found = _agreement(left, first, again, sizes)
        if found is not None:
            return found[0], again, found[1]
    return None


def _agreement(left: _Window, first: int, right: _Window, sizes: Sizes) -> tuple[int, int] | None:
    """The numbers of the token, in both windows, before which to cut: nearest to the middle of the
    overlap, among those with enough equal tokens before and behind them."""
    middle = (right.start + left.end) // 2
    near, near_right = (w.around(middle, 2 * sizes.agreeing) for w in (left, right))
    ours = _keys(left, max(first, near.start), max(first, near.stop))
    theirs = _keys(right, near_right.start, near_right.stop)
    found = _nearest(left, ours, right, theirs, middle, sizes)
    if found is None:
        ours = _keys(left, max(first, _first_from(left, right.start)), left.n_tokens)
        theirs = _keys(right, 0, _first_behind(right, left.end))
        found = _nearest(left, ours, right, theirs, middle, sizes)
    return found


def _nearest(
    left: _Window, ours: _Keys, right: _Window, theirs: _Keys, middle: int, sizes: Sizes
) -> tuple[int, int] | None:
    half, run, last = sizes.agreeing // 2, 0, -2
    best, distance = None, left.end
    for key, number in ours.items():
        other = theirs.get(key)
        run = run + 1 if other is not None and other == last + 1 else int(other is not None)
        last = -2 if other is None else other
        if run < sizes.agreeing or other is None:
            continue
        cut, other_cut = number - half + 1, other - half + 1
        away = abs(left.place(cut)[0] - middle)
        if away < distance and _is_safe(left, cut, right, other_cut, sizes):
            best, distance = (cut, other_cut), away
    return best


def _is_safe(left: _Window, cut: int, right: _Window, other: int, sizes: Sizes) -> bool:
    if left.is_new_word(cut) and right.is_new_word(other):
        return True
    half = sizes.agreeing // 2
    return not sizes.between_words and left.kinds(cut - half, cut + half) >= sizes.kinds


def _keys(window: _Window, begin: int, end: int) -> _Keys:
    """The numbers of tokens by place and id; several that share a character are counted."""
    keys: _Keys = {}
    first = begin
    while 0 < first < end and window.place(first) == window.place(first - 1):
        first -= 1
    before, count = (-1, -1), 0
    for number, id_ in enumerate(window.tokens.ids[first:end].tolist(), first):
        place = window.place(number)
        count = count + 1 if place == before else 0
        before = place
        if number >= begin:
            keys[*place, count, id_] = number
    return keys


def _first_from(window: _Window, character: int) -> int:
    """The first of a window's last tokens, those from a character of the document on."""
    number = window.n_tokens
    while number and window.place(number - 1)[0] >= character:
        number -= 1
    return number


def _first_behind(window: _Window, character: int) -> int:
    """The first of a window's tokens that begins at a character of the document, or behind it."""
    number = 0
    while number < window.n_tokens and window.place(number)[0] < character:
        number += 1
    return number


def _merge(
    left: _Window, first: int, waiting: list[_Window], encode: Encode, sizes: Sizes
) -> tuple[_Window, int]:
    """One window of all these, and the number in it of the left one's token `first`."""
    parts, end = [left.text], left.end
    for window in waiting:
        parts.append(window.text[end - window.start :])
        end = window.end
    text = "".join(parts)
    whole = _Window(left.start, text, encode([text])[0])
    if first == 0:
        return whole, 0
    half = sizes.agreeing // 2
    before = min(first, half)
    around = list(_keys(left, first - before, min(first + half, left.n_tokens)))
    near = whole.around(left.place(first)[0], 2 * half)
    places = _keys(whole, near.start, near.stop)
    begin = places.get(around[before], -1) - before
    if [places.get(key) for key in around] != list(range(begin, begin + len(around))):
        raise CorpusError(
            f"a document cannot be cut near character {left.place(first)[0]:,}: its tokens there "
            "hang on text far behind; cut the document there yourself"
        )
    return whole, begin + before
