"""How many tokens a context may have, as far as a model's positions settle it."""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

_TABLE = re.compile(r"wpe|(?![xyhw]_).*pos(ition(s|al)?)?_?(embed|emb).*|(embed|emb)_?pos.*")
"""Names of tables of absolute positions in a text. Those of places on a page begin with an axis."""


def context_limit(text: nn.Module, blocks: str) -> int | None:
    """Most tokens in a context of the language model `text`, which may be on the meta device; None
    where nothing says so. `blocks` is the dotted name of its list of blocks, from `text`.

    The config's max_position_embeddings counts where it is a number of positions (XLNet says -1:
    no limit), and every table of absolute positions has to have a row for the last token. Where a
    table has a padding row, positions begin behind it (RoBERTa and its kin).
    """
    config: Any = text.config
    limits = [getattr(config, "max_position_embeddings", None)]
    for table in _tables(text, blocks):
        padding: Any = getattr(table, "padding_idx", None)
        weight: Any = table.weight
        limits.append(weight.shape[0] - (0 if padding is None else padding + 1))
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(known, default=None)


def _tables(text: nn.Module, blocks: str) -> Iterator[nn.Module]:
    for name, module in text.named_modules():
        weight = getattr(module, "weight", None)
        if (
            not name.startswith(f"{blocks}.")
            and _TABLE.fullmatch(name.rpartition(".")[2])
            and isinstance(weight, Tensor)
            and weight.ndim == 2
            and not isinstance(module, nn.Linear)
        ):
            yield module
