"""What features stand for: the tokens, in their context, that fire them most.

Names: B rows, M enabled features, K examples a feature.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.store import StorePart
from cpsae.tensors import tensor_of

_BATCH_ROWS = 4096
_JUDGED = 24
"""Examples by which a feature is judged; fewer of them are shown."""
_RAREST, _COMMONEST = 0.005, 0.1
"""Features that fire on a smaller or a larger share of rows say little."""


@dataclass(frozen=True)
class Example:
    """A token that fires a feature, and the text around it."""

    activation: float
    before: str
    token: str
    after: str


@dataclass(frozen=True)
class FeatureExamples:
    """A feature and its strongest examples, the strongest first."""

    feature: int
    rate: float
    """Share of rows in which it is the row's strongest or carries over 1 % of it."""
    label: str
    """The text that its examples share most."""
    consistency: float
    """Share of the judged examples that have it."""
    examples: list[Example]


def find_examples(
    sae: SparseAutoencoder,
    part: StorePart,
    decode: Callable[[int], str],
    shown: int = 4,
    window: tuple[int, int] = (12, 5),
) -> list[FeatureExamples]:
    """Features with their examples among a part's rows, those whose examples agree most first, and
    no two with the same label.

    `decode` gives the text of one token id; `window`: tokens of text before and after. Raises
    StoreError where the store holds no tokens.
    """
    part.tokens(range(0))  # refuses a store without tokens before the work
    strengths, rows, rates = _strongest(sae, part)
    candidates = []
    for feature in range(sae.n_enabled):
        if not _RAREST <= rates[feature] <= _COMMONEST:
            continue
        examples = _examples(part, decode, strengths[:, feature], rows[:, feature], window)
        label, consistency = _common_text(examples)
        candidates.append(
            FeatureExamples(feature, float(rates[feature]), label, consistency, examples[:shown])
        )
    return _distinct(candidates)


@torch.no_grad()
def _strongest(sae: SparseAutoencoder, part: StorePart) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (K, M) and rows (K, M) of the strongest examples, and firing rates (M,)."""
    m = sae.n_enabled
    best = torch.full((_JUDGED, m), -torch.inf)
    best_rows = torch.zeros((_JUDGED, m), dtype=torch.int64)
    fired = torch.zeros(m, dtype=torch.int64)
    for chunk in part.chunks:
        mapped = part.rows(chunk)
        for start in range(0, chunk.n_rows, _BATCH_ROWS):
            rows = mapped[start : start + _BATCH_ROWS]
            x = tensor_of(rows).to(sae.W_enc.device).float()
            latents = sae.latents(x).competed.cpu()
            fired += (latents > 0.01 * latents.amax(1, keepdim=True)).sum(0)
            numbers = chunk.first_row + start + torch.arange(len(rows))
            both = torch.cat([best, latents])
            both_rows = torch.cat([best_rows, numbers[:, None].expand(-1, m)])
            best, order = both.topk(_JUDGED, dim=0)
            best_rows = both_rows.gather(0, order)
    return best, best_rows, fired.double() / part.vectors


def _examples(
    part: StorePart,
    decode: Callable[[int], str],
    strengths: Tensor,
    rows: Tensor,
    window: tuple[int, int],
) -> list[Example]:
    found = []
    for strength, row in zip(strengths.tolist(), rows.tolist(), strict=True):
        if strength <= 0:
            continue
        context, position = part.origin(row)
        tokens = part.tokens(range(context, context + 1))[0].tolist()
        before = tokens[max(0, position - window[0]) : position]
        after = tokens[position + 1 : position + 1 + window[1]]
        found.append(
            Example(
                strength,
                "".join(map(decode, before)),
                decode(tokens[position]),
                "".join(map(decode, after)),
            )
        )
    return found


def _common_text(examples: Sequence[Example]) -> tuple[str, float]:
    """The token that most examples share, and the share that does."""
    if not examples:
        return "", 0.0
    (label, count), *_ = Counter(example.token for example in examples).most_common(1)
    return label, count / len(examples)


def _distinct(candidates: Sequence[FeatureExamples]) -> list[FeatureExamples]:
    """The most consistent first, of equals the one that fires least; one for each label."""
    chosen: dict[str, FeatureExamples] = {}
    for found in sorted(candidates, key=lambda f: (-f.consistency, f.rate)):
        chosen.setdefault(found.label.strip() or found.label, found)
    return list(chosen.values())
