"""Tokens packed into contexts of one length, split in two parts, and shuffled once.

The result is a pure function of the documents, the tokenizer and the plan.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cpsae.corpus.document import Document
from cpsae.corpus.split import (
    PackingPlan,
    PartName,
    PositionSplit,
    Span,
    Split,
    first_split,
    later_split,
    most_vectors,
)
from cpsae.corpus.text_tokenizer import SpecialTokens, TextTokenizer, TokenIds
from cpsae.corpus.tokenizing import TokenRun, tokenise
from cpsae.errors import CorpusError
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore

ReadDocuments = Callable[[], Iterator[Document]]

_FIRST_CONTEXTS = 1024


class TooSmallError(CorpusError):
    """A corpus with fewer tokens than were asked for."""


@dataclass(frozen=True)
class PackedTokens:
    """Both parts of a store's tokens, each in its shuffled order."""

    training: TokenIds
    """int32 (training contexts, T)."""
    evaluation: TokenIds
    """int32 (evaluation contexts, T)."""
    split: Literal["documents", "position"]
    """What the parts were cut by: whole documents, or position in the only one."""
    documents: int
    """Documents that were read until both parts were full, blank ones not counted."""
    bos_token_id: int | None
    separator_token_id: int | None


def pack(
    read_documents: ReadDocuments,
    tokenizer: Any,
    plan: PackingPlan,
    on_event: OnEvent = ignore,
    name: str = "the corpus",
    *,
    embedding_rows: int | None = None,
    special_tokens: bool = False,
    one_document: bool = False,
) -> PackedTokens:
    """Tokenise, pack, split and shuffle; reading stops as soon as both parts are full.

    `read_documents` gives the same documents in the same order at each call; it is called twice
    where the first split does not do (one document, unless it is known to be that; the limit of
    evaluation contexts a document). tokenizer: of transformers. embedding_rows: of the model;
    special_tokens: whether the text means those that it spells. Progress is in tokens packed, of
    those needed. Memory: the result and one batch.

    Raises CorpusError for a token that the model has no embedding of; TooSmallError, which calls
    the corpus by `name`, where there are too few: it says how many vectors they would give.
    """
    text_tokenizer = TextTokenizer(
        tokenizer, special_tokens=special_tokens, embedding_rows=embedding_rows
    )
    special = text_tokenizer.special
    split: Split = first_split(plan, special)
    if one_document:
        split = PositionSplit(plan.needs(special))
    packer = _Packer(plan, special, split)
    packer.run(read_documents(), text_tokenizer, on_event)
    if not packer.full:
        lengths = packer.lengths
        second = later_split(plan, special, lengths)
        if second is None:
            raise TooSmallError(f"{name} {_too_small(plan, special, lengths)}")
        del packer  # its tokens would double the memory
        packer = _Packer(plan, special, split := second)
        packer.run(read_documents(), text_tokenizer, on_event)
    if not packer.full:
        raise CorpusError(f"{name} changed while it was read; run the same command again")
    return PackedTokens(
        training=_shuffled(packer.parts["training"].contexts(), plan.seed),
        evaluation=_shuffled(packer.parts["evaluation"].contexts(), [plan.seed, 1]),
        split=split.name,
        documents=packer.documents,
        bos_token_id=special.bos,
        separator_token_id=special.separator,
    )


class _Contexts:
    """A stream of tokens, cut into pieces with BOS in front of each as it is written."""

    def __init__(self, n_contexts: int, tokens: int, special: SpecialTokens) -> None:
        self._special = special
        self._first = int(special.bos is not None)
        self._piece = tokens - self._first
        self._n_contexts = n_contexts
        self._array: TokenIds = np.empty((0, tokens), dtype=np.int32)
        self.held = 0
        self.needed = n_contexts * self._piece

    @property
    def full(self) -> bool:
        return self.held >= self.needed

    def join(self) -> None:
        """Another document follows: put the separator, if there is a document before."""
        if self.held and self._special.separator is not None:
            self.append(np.array([self._special.separator], dtype=np.int32))

    def append(self, ids: TokenIds) -> None:
        """Write tokens (n,) behind those that are there; what is over the need is dropped."""
        ids = ids[: self.needed - self.held]
        self._reserve(self.held + len(ids))
        while len(ids):
            row, column = divmod(self.held, self._piece)
            whole = 0 if column else len(ids) // self._piece
            if whole:
                count = whole * self._piece
                pieces = ids[:count].reshape(whole, self._piece)
                self._array[row : row + whole, self._first :] = pieces
            else:
                count = min(len(ids), self._piece - column)
                column += self._first
                self._array[row, column : column + count] = ids[:count]
            self.held += count
            ids = ids[count:]

    def contexts(self) -> TokenIds:
        """All contexts (n, T), once full; the buffer itself, not a copy."""
        return self._array

    def _reserve(self, held: int) -> None:
        """Have rows for `held` tokens: grown in place, where the allocator can, and never beyond
        the need, so that a hopeless number of vectors takes no memory."""
        rows, there = -(-held // self._piece), len(self._array)
        if rows > there:
            rows = min(self._n_contexts, max(rows, 2 * there, _FIRST_CONTEXTS))
            self._array.resize((rows, self._array.shape[1]), refcheck=False)
            if self._special.bos is not None:
                self._array[there:, 0] = self._special.bos


class _Packer:
    """One reading of the corpus: puts each document's tokens where `split` says."""

    def __init__(self, plan: PackingPlan, special: SpecialTokens, split: Split) -> None:
        self.parts: dict[PartName, _Contexts] = {
            "training": _Contexts(plan.training_contexts, plan.tokens, special),
            "evaluation": _Contexts(plan.evaluation_contexts, plan.tokens, special),
        }
        self.lengths = array("q")
        """Tokens of each document that was read to its end."""
        self.documents = 0
        self._split = split
        self._spans: deque[Span] = deque()
        self._length = 0

    @property
    def full(self) -> bool:
        return all(part.full for part in self.parts.values())

    def run(
        self, documents: Iterator[Document], tokenizer: TextTokenizer, on_event: OnEvent
    ) -> None:
        """Read until both parts are full or the documents are at their end."""
        total = sum(part.needed for part in self.parts.values())
        on_event(Started("tokenise", total, "token", kept=False))
        for batch in tokenise(documents, tokenizer, on_event=on_event):
            for run in batch:
                self._take(run)
                if self.full:
                    break
            on_event(Advanced(min(total, sum(part.held for part in self.parts.values()))))
            if self.full:
                break
        else:
            self._end_document()
        on_event(Finished())

    def _take(self, run: TokenRun) -> None:
        if run.starts_document:
            self._end_document()
        if len(run.ids) == 0:
            return
        if self._length == 0:
            self._begin_document()
        self._length += len(run.ids)
        ids = run.ids
        while len(ids) and self._spans:
            part, room = self._spans.popleft()
            taken = ids[:room]
            if part is not None:
                self.parts[part].append(taken)
            if len(taken) < room:
                self._spans.appendleft(Span(part, room - len(taken)))
            ids = ids[len(taken) :]

    def _begin_document(self) -> None:
        self.documents += 1
        self._spans = deque(self._split.begin())
        first = self._spans[0].part
        if first is not None:
            self.parts[first].join()

    def _end_document(self) -> None:
        """Close the document at hand; one without any token never was begun."""
        if self._length:
            self._split.end(self._length)
            self.lengths.append(self._length)
        self._length = 0


def _shuffled(contexts: TokenIds, seed: int | list[int]) -> TokenIds:
    """Permute whole contexts in place."""
    np.random.Generator(np.random.PCG64(seed)).shuffle(contexts, axis=0)
    return contexts


def _too_small(plan: PackingPlan, special: SpecialTokens, lengths: Sequence[int]) -> str:
    tokens, vectors = sum(lengths), most_vectors(plan, special, lengths)
    count = "one document" if len(lengths) == 1 else f"{len(lengths):,} documents"
    text = f"is too small: its {tokens:,} tokens in {count}"
    if vectors == 0:
        piece = plan.piece(special)
        return (
            f"{text} give no training and held-out context of {piece} tokens each, and "
            f"{plan.vectors:,} vectors were asked for; give more text, or fewer --tokens"
        )
    return (
        f"{text} give at most {vectors:,} vectors beside the held-out part, and {plan.vectors:,} "
        f"were asked for; use --vectors {vectors}, or give more text"
    )
