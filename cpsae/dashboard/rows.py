"""Which rows of a store a page is made from, under one numbering, and the text behind each.

Names: B rows, D dimensions, R rows a context, T tokens a context.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cpsae.store import Chunk, Store, StorePart

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """The first rows of a chunk, which are numbered on from `first`."""

    part: StorePart
    chunk: Chunk
    count: int
    first: int


class SeenRows:
    """The held-out rows, and, where they are fewer than asked for, the first ones of training:
    contexts are shuffled once for the whole store, so that these are a fair sample of them."""

    def __init__(self, store: Store, most: int) -> None:
        """most: rows; the last context is taken whole."""
        self.store = store
        contexts = store.manifest.contexts
        self.rows_per_context = contexts.rows if contexts else 1
        most = -(-most // self.rows_per_context) * self.rows_per_context
        self.pieces: list[Piece] = []
        self.held_out = self.rows = 0
        if store.evaluation is not None:
            self._take(store.evaluation, most)
        self.held_out = self.rows
        self._take(store.training, most)

    @property
    def has_tokens(self) -> bool:
        """Whether the store knows what text its rows are of."""
        return self.store.manifest.contexts is not None

    def batches(self, size: int) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[np.float32]]]:
        """The number of the first row, rows (B, D) in the store's dtype and their norms (B,), at
        most `size` at a time."""
        for piece in self.pieces:
            rows, norms = piece.part.rows(piece.chunk), piece.part.norms(piece.chunk)
            for start in range(0, piece.count, size):
                here = slice(start, min(start + size, piece.count))
                yield piece.first + start, rows[here], norms[here]

    def contexts(self, rows: Ints) -> Ints:
        """(B,) a number for the context of each row, in the order of the rows."""
        piece, within = self._places(rows)
        begins = np.cumsum([0, *(-(-p.count // self.rows_per_context) for p in self.pieces)])
        return np.asarray(begins[piece] + within // self.rows_per_context)

    def positions(self, rows: Ints) -> Ints:
        """(B,) which row of its context each is."""
        return np.asarray(self._places(rows)[1] % self.rows_per_context)

    def texts(self) -> Iterator[tuple[int, int, npt.NDArray[np.int32]]]:
        """Of each context, in the order of their numbers: its first row, how many rows of it there
        are, and its tokens (T,). Raises StoreError where the store has none."""
        for piece in self.pieces:
            for tokens, offset in zip(
                piece.part.tokens(piece.chunk.contexts),
                range(0, piece.count, self.rows_per_context),
                strict=False,
            ):
                rows = min(self.rows_per_context, piece.count - offset)
                yield piece.first + offset, rows, tokens

    def _places(self, rows: Ints) -> tuple[Ints, Ints]:
        """The piece of each row, and which row of it that is."""
        firsts = np.array([piece.first for piece in self.pieces])
        piece = np.searchsorted(firsts, rows, side="right") - 1
        return piece, rows - firsts[piece]

    def _take(self, part: StorePart, most: int) -> None:
        for chunk in part.chunks:
            count = min(chunk.n_rows, most - self.rows)
            if count <= 0:
                return
            self.pieces.append(Piece(part, chunk, count, self.rows))
            self.rows += count
