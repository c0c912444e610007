"""How many contexts a store needs, and which document goes to which of its two parts.

Nothing here sees a token: the same rules place tokens (packing.py) and, from the lengths of the
documents alone, tell what a corpus that is too small could give.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from cpsae.corpus.text_tokenizer import SpecialTokens
from cpsae.held_out import held_out_rows

PartName = Literal["training", "evaluation"]

CONTEXTS_OF_A_DOCUMENT = 8
"""What evaluation takes at most of one document, so that it sees many."""


@dataclass(frozen=True)
class PackingPlan:
    """What is to come out of the packing: sizes and seed."""

    tokens: int
    """T, tokens a context; at least 2."""
    vectors: int
    """Training rows that the contexts have to give."""
    keep_bos: bool = False
    """Whether position 0 of a context gives a row too."""
    seed: int = 0

    @property
    def rows_per_context(self) -> int:
        """R, with or without a BOS token: position 0 is dropped in every case unless kept."""
        return self.tokens if self.keep_bos else self.tokens - 1

    @property
    def training_contexts(self) -> int:
        """The last one perhaps needed in part."""
        return math.ceil(self.vectors / self.rows_per_context)

    @property
    def evaluation_rows(self) -> int:
        """Held-out rows."""
        return held_out_rows(self.vectors)

    @property
    def evaluation_contexts(self) -> int:
        """The last one perhaps needed in part."""
        return math.ceil(self.evaluation_rows / self.rows_per_context)

    def piece(self, special: SpecialTokens) -> int:
        """Text tokens of a context: T less the BOS in front, if there is one."""
        return self.tokens - (special.bos is not None)

    def needs(self, special: SpecialTokens) -> "Needs":
        """Text tokens (separators among them) that fill both parts."""
        piece = self.piece(special)
        return Needs(self.training_contexts * piece, self.evaluation_contexts * piece, piece)


class Needs(NamedTuple):
    """Tokens that fill the training and the evaluation part, and a context of either."""

    training: int
    evaluation: int
    context: int


class Span(NamedTuple):
    """The next `tokens` tokens of a document go to `part`, or nowhere."""

    part: PartName | None
    tokens: int


class Split(Protocol):
    """Says of one document after another where its tokens go."""

    name: Literal["documents", "position"]

    @property
    def full(self) -> bool:
        """Whether both parts hold what they need."""
        ...

    def begin(self) -> Sequence[Span]:
        """Where the next document's tokens go, in order; what is left over is dropped."""
        ...

    def end(self, length: int) -> None:
        """The document begun last had `length` tokens."""
        ...


class DocumentSplit:
    """A document goes to evaluation while that holds less than its share of the tokens used so
    far, else to training; evaluation takes at most `most_contexts` of one (None: all of it)."""

    name: Literal["documents", "position"] = "documents"

    def __init__(self, needs: Needs, separator: bool, most_contexts: int | None) -> None:
        self._needs = {"training": needs.training, "evaluation": needs.evaluation}
        self._separator = int(separator)
        self._most = needs.training + needs.evaluation
        if most_contexts is not None:
            self._most = most_contexts * needs.context
        self._held = {"training": 0, "evaluation": 0}
        self._span = Span("training", 0)

    @property
    def full(self) -> bool:
        return self._held == self._needs

    def begin(self) -> Sequence[Span]:
        part = self._next_part()
        # Within a part, documents are joined by a separator: none before the first.
        if self._held[part] and self._held[part] < self._needs[part]:
            self._held[part] += self._separator
        room = self._needs[part] - self._held[part]
        self._span = Span(part, min(room, self._most) if part == "evaluation" else room)
        return [self._span]

    def end(self, length: int) -> None:
        part, room = self._span
        if part is not None:
            self._held[part] += min(length, room)

    def _next_part(self) -> PartName:
        training, evaluation = self._held["training"], self._held["evaluation"]
        wanted = self._needs["evaluation"]
        if evaluation >= wanted:
            return "training"
        # evaluation / used < wanted / (all that is needed), in whole numbers
        behind = evaluation * (self._needs["training"] + wanted) < wanted * (training + evaluation)
        return "evaluation" if behind else "training"


class PositionSplit:
    """One document: training first, one context left out, then evaluation."""

    name: Literal["documents", "position"] = "position"

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self.full = False

    def begin(self) -> Sequence[Span]:
        return [
            Span("training", self._needs.training),
            Span(None, self._needs.context),
            Span("evaluation", self._needs.evaluation),
        ]

    def end(self, length: int) -> None:
        self.full = length >= sum(span.tokens for span in self.begin())


def first_split(plan: PackingPlan, special: SpecialTokens) -> Split:
    """How a corpus is split before anything is known about it."""
    needs = plan.needs(special)
    return DocumentSplit(needs, special.separator is not None, CONTEXTS_OF_A_DOCUMENT)


def later_split(plan: PackingPlan, special: SpecialTokens, lengths: Sequence[int]) -> Split | None:
    """How to split a corpus that the first split did not do for, given all its documents' lengths
    in tokens; None where it is too small."""
    make = _later(plan, special, lengths)
    return make() if fills(make(), lengths) else None


def fills(split: Split, lengths: Iterable[int]) -> bool:
    """Whether documents of these lengths fill both parts. Uses `split` up."""
    for length in lengths:
        split.begin()
        split.end(length)
        if split.full:
            return True
    return split.full


def most_vectors(plan: PackingPlan, special: SpecialTokens, lengths: Sequence[int]) -> int:
    """The most vectors, a whole number of contexts, for which the documents suffice; 0 if none.

    Found by bisection, which takes it that what suffices for more suffices for fewer.
    """
    least = 0
    with_separators = sum(lengths) + len(lengths)
    most = min(plan.training_contexts, with_separators // plan.piece(special) + 1)
    while most - least > 1:
        middle = (least + most) // 2
        smaller = replace(plan, vectors=middle * plan.rows_per_context)
        enough = fills(first_split(smaller, special), lengths) or (
            later_split(smaller, special, lengths) is not None
        )
        least, most = (middle, most) if enough else (least, middle)
    return least * plan.rows_per_context


def _later(
    plan: PackingPlan, special: SpecialTokens, lengths: Sequence[int]
) -> Callable[[], Split]:
    needs = plan.needs(special)
    if len(lengths) == 1:
        return lambda: PositionSplit(needs)
    return lambda: DocumentSplit(needs, special.separator is not None, None)
