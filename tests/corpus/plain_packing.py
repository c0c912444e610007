"""Packing and splitting in plain lists, as the words of the documentation have it."""

import math

import numpy as np

from cpsae.corpus import PackingPlan

Contexts = list[list[int]]


def plain_split(
    documents: Contexts, plan: PackingPlan, bos: int | None, eos: int | None
) -> tuple[Contexts, Contexts] | None:
    """Unshuffled contexts of both parts of documents given as token ids; None: too few."""
    piece = plan.tokens - (bos is not None)
    rows = plan.tokens - (not plan.keep_bos)
    need_train = math.ceil(plan.vectors / rows)
    held_out = math.floor(min(200_000, max(plan.vectors / 100, min(plan.vectors / 10, 20_000))))
    need_held = math.ceil(max(1, held_out) / rows)

    def cut(stream: list[int], n: int) -> Contexts | None:
        front = [] if bos is None else [bos]
        pieces = [front + stream[i : i + piece] for i in range(0, len(stream), piece)]
        whole = [p for p in pieces if len(p) == plan.tokens]
        return whole[:n] if len(whole) >= n else None

    documents = [d for d in documents if d]
    if len(documents) == 1:
        middle = need_train * piece
        parts = documents[0][:middle], documents[0][middle + piece :]
        train, held = cut(parts[0], need_train), cut(parts[1], need_held)
        return None if train is None or held is None else (train, held)
    for limit in (8 * piece, 10**9):
        train_stream: list[int] = []
        held_stream: list[int] = []
        share = need_held / (need_held + need_train)
        for document in documents:
            used = len(train_stream[: need_train * piece]) + len(held_stream)
            open_ = len(held_stream) < need_held * piece
            to_held = open_ and len(held_stream) < share * used - 1e-9
            stream = held_stream if to_held else train_stream
            if stream and eos is not None:
                stream.append(eos)
            stream += document[:limit] if to_held else document
        train, held = cut(train_stream, need_train), cut(held_stream, need_held)
        if train is not None and held is not None:
            return train, held
    return None


def same_contexts(found: np.ndarray, expected: Contexts) -> bool:
    """Whether they are the same in any order."""
    return sorted(found.tolist()) == sorted(expected)
