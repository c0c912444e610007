"""Which output tokens a feature makes likelier: its decoder row, read by the model's own end.

Names: M features, D dimensions, V vocabulary, K tokens.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:  # transformers takes seconds to import, and not every page has a lens
    from cpsae.models.spliced import SplicedModel

_ROWS = 64
_LOGITS = 1 << 24


class Promoted(NamedTuple):
    """Tokens and what is added to their logits, (M, K) each: the most promoted first, then the most
    suppressed first."""

    up: npt.NDArray[np.int64]
    up_logits: npt.NDArray[np.float32]
    down: npt.NDArray[np.int64]
    down_logits: npt.NDArray[np.float32]


@torch.no_grad()
def logit_lens(model: "SplicedModel", w_dec_MD: Tensor, tokens: int, k: int = 10) -> Promoted:
    """The logit lens of M directions: each in the place of what the last block gives, through the
    final norm and the head, less what zeros give there.

    model: spliced at the output of its last block. tokens: of the tokenizer, which may be fewer
    than the head has. Raises ModelError where the model cannot run.
    """
    k = min(k, tokens)
    rows = max(1, min(_ROWS, _LOGITS // model.vocabulary))
    context = torch.zeros((1, rows), dtype=torch.int64)
    on_context = model.on(context)
    nothing = on_context.logits(torch.zeros_like)[0, :1, :tokens].float()
    found = []
    for start in range(0, len(w_dec_MD), rows):
        some = w_dec_MD[start : start + rows]
        filled = torch.zeros(rows, w_dec_MD.shape[1])
        filled[: len(some)] = some.cpu()

        def replace(given: Tensor, filled: Tensor = filled) -> Tensor:
            return filled.to(given).reshape(given.shape)

        logits = on_context.logits(replace)[0, : len(some), :tokens].float() - nothing
        up, down = logits.topk(k, dim=1), (-logits).topk(k, dim=1)
        found.append([up.indices, up.values, down.indices, -down.values])
    return Promoted(*(torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)))
