"""What a reconstruction does to the language model that it is put into (METHOD section 6).

Of each held-out context the model runs as it is, with zeros in the place of the rows of the store's
site, and, for each autoencoder, with reconstructions in their place. Names: B contexts, T tokens a
context, V vocabulary, U contexts as bootstrap units, C columns (sums over a context's positions).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpsae.errors import StoreError
from cpsae.evaluation.bootstrap import Sums, intervals
from cpsae.evaluation.held_out import defined
from cpsae.evaluation.rows import held_out_part, limit
from cpsae.evaluation.saebench import PREFIX
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.evaluation.sums import SumsByUnit
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.models.spliced import Replace, SplicedModel
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.store import Store
from cpsae.tensors import dtype_name

_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}
"""Logits of a batch, at most, where a batch is more than one context; two sets of them are held."""
_MOST_CONTEXTS = {"cpu": 8, "cuda": 64}
_LOGITS_IN_FLOAT32 = 1 << 24
"""Logits that are compared at once, of which float32 copies are made."""

_COLUMNS = (
    *("positions", "ce_clean", "ce_sae", "ce_zero", "kl_sae", "kl_zero"),
    *("their_ce_positions", "their_ce_clean", "their_ce_sae", "their_ce_zero"),
    *("their_kl_positions", "their_kl_sae", "their_kl_zero"),
)


@dataclass(frozen=True)
class ThroughModelResult:
    """Figures over all counted positions of the contexts."""

    metrics: dict[str, float | int | None]
    intervals: dict[str, list[float] | None]
    """By `<name>_ci`."""
    saebench: dict[str, float | int | None]
    """SAEBench's own figures, by `saebench/<name>`."""
    basis: dict[str, Any]


def measure_through(
    saes: Sequence[SparseAutoencoder],
    store: Store,
    model: SplicedModel,
    special: SpecialTokens,
    contexts: int | None = None,
    on_event: OnEvent = ignore,
) -> list[ThroughModelResult]:
    """CE and KL of each autoencoder on the store's held-out contexts, or the first `contexts` of
    those that are there.

    saes: float32, on the model's device. Raises StoreError where nothing is held out, or the store
    has no tokens; ModelError where the model cannot run.
    """
    numbers = context_numbers(store, contexts)
    sums = [SumsByUnit(len(numbers), len(_COLUMNS)) for _ in saes]
    on_event(Started("evaluate through the model", len(numbers), "context", kept=False))
    done = 0
    for tokens in _batches(store, numbers, model):
        units = np.arange(done, done + len(tokens))
        here = _Batch(store, model, special, tokens)
        for sae, of_sae in zip(saes, sums, strict=True):
            of_sae.add(units, np.ones(len(tokens), dtype=bool), here.values(sae))
        done += len(tokens)
        on_event(Advanced(done))
    on_event(Finished())
    basis = {"name": model.name, "dtype": dtype_name(model.dtype), "contexts": len(numbers)}
    return [_result(of_sae.result(), basis) for of_sae in sums]


def _result(table_UC: npt.NDArray[np.float64], basis: dict[str, Any]) -> ThroughModelResult:
    values = {name: float(value) for name, value in _figures(table_UC.sum(0)).items()}
    ours = {name: value for name, value in values.items() if not name.startswith(PREFIX)}
    found = intervals(table_UC, _figures)
    return ThroughModelResult(
        defined(ours),
        {f"{name}_ci": middle for name, middle in found.items()},
        defined({name: value for name, value in values.items() if name.startswith(PREFIX)}),
        {"model": {**basis, "positions": int(table_UC[:, 0].sum())}},
    )


def context_numbers(store: Store, contexts: int | None = None) -> list[int]:
    """The held-out contexts whose rows are there, or the first `contexts` of them. Raises
    StoreError as `measure_through` does."""
    part = held_out_part(store)
    if store.manifest.contexts is None:
        raise StoreError(
            f"{store.path}: was made from arrays and holds no tokens to run through a model; leave "
            "--model out"
        )
    numbers = [number for chunk in part.chunks for number in chunk.contexts]
    return numbers[: limit(store, contexts)] if contexts is not None else numbers


def _batches(
    store: Store, numbers: list[int], model: SplicedModel
) -> Iterator[npt.NDArray[np.int32]]:
    """Tokens (B, T) of the contexts of these numbers, in that order."""
    part, contexts = held_out_part(store), store.manifest.contexts
    assert contexts is not None, "context_numbers refuses stores without"
    kind = model.device.type
    fitting = _LOGITS[kind] // (contexts.tokens * model.vocabulary)
    size = max(1, min(_MOST_CONTEXTS[kind], fitting))
    for start in range(0, len(numbers), size):
        here = numbers[start : start + size]
        yield np.concatenate([part.tokens(range(n, n + 1)) for n in here])


class _Batch:
    """A batch of contexts, with all that is the same for every autoencoder."""

    def __init__(
        self,
        store: Store,
        model: SplicedModel,
        special: SpecialTokens,
        tokens_BT: npt.NDArray[np.int32],
    ) -> None:
        assert store.manifest.contexts is not None, "context_numbers refuses stores without"
        is_text = ~special.among(tokens_BT)
        has_rows = np.arange(tokens_BT.shape[1]) >= store.manifest.contexts.first_position
        self._tokens, self._text, self._ours = (
            torch.from_numpy(values).to(model.device)
            for values in (tokens_BT.astype(np.int64), is_text, is_text & has_rows)
        )
        self._theirs_differ = bool((is_text & ~has_rows).any())
        self._model = model.on(self._tokens)
        self._ce_clean, _ = self._compare(self._model.clean)
        self._by_zeros = self._with(_by_zeros(self._ours))
        self._their_zeros = self._with(_by_zeros(torch.ones_like(self._text)))

    def values(self, sae: SparseAutoencoder) -> Tensor:
        """What each context adds to the sums: (B, C) float64."""
        by_sae = self._with(_by_sae(sae, self._ours))
        theirs = self._with(_by_sae(sae, self._text)) if self._theirs_differ else by_sae
        ours, text = self._ours, self._text
        predicting, their_predicting = ours[:, :-1], text[:, :-1]
        ce_clean, one = self._ce_clean, torch.ones_like(self._ce_clean)
        columns = [
            *(_sum(v, predicting) for v in (one, ce_clean, by_sae.ce, self._by_zeros.ce)),
            *(_sum(v.kl[:, :-1], predicting) for v in (by_sae, self._by_zeros)),
            *(_sum(v, their_predicting) for v in (one, ce_clean, theirs.ce, self._their_zeros.ce)),
            *(_sum(v, text) for v in (torch.ones_like(theirs.kl), theirs.kl, self._their_zeros.kl)),
        ]
        return torch.stack(columns, dim=1)

    def _with(self, replace: Replace) -> "_Compared":
        return self._compare(self._model.logits(replace))

    def _compare(self, logits: Tensor) -> "_Compared":
        return _compare(self._model.clean, logits, self._tokens)


class _Compared(NamedTuple):
    """Logits against the next tokens, and against the clean ones, in nats."""

    ce: Tensor
    """(B, T - 1), of predicting the next token."""
    kl: Tensor
    """(B, T), from the clean ones."""


def _by_sae(sae: SparseAutoencoder, where_BT: Tensor) -> Replace:
    def replace(rows: Tensor) -> Tensor:
        return torch.where(where_BT[..., None], sae(rows.float()).to(rows.dtype), rows)

    return replace


def _by_zeros(where_BT: Tensor) -> Replace:
    return lambda rows: rows.masked_fill(where_BT[..., None], 0)


def _compare(clean: Tensor, other: Tensor, tokens_BT: Tensor) -> _Compared:
    """Logits (B, T, V), in float32 a few positions at a time."""
    batch, length, vocabulary = clean.shape
    targets = torch.cat([tokens_BT[:, 1:], tokens_BT[:, :1]], dim=1).reshape(-1)
    ce, kl = [], []
    size = max(1, _LOGITS_IN_FLOAT32 // vocabulary)
    for start in range(0, batch * length, size):
        here = slice(start, start + size)
        log_p = clean.reshape(-1, vocabulary)[here].float().log_softmax(-1)
        log_q = log_p
        if other is not clean:
            log_q = other.reshape(-1, vocabulary)[here].float().log_softmax(-1)
        ce.append(-log_q.gather(1, targets[here, None])[:, 0])
        # a token that the model rules out adds nothing: 0 log 0
        terms = log_p.exp() * (log_p - log_q).masked_fill(log_p == -torch.inf, 0)
        kl.append(terms.sum(-1))
    of_all = torch.cat(ce).reshape(batch, length)
    return _Compared(of_all[:, :-1], torch.cat(kl).reshape(batch, length))


def _sum(values: Tensor, counted: Tensor) -> Tensor:
    """(B,) float64 over the positions that count."""
    return torch.where(counted, values.double(), 0.0).sum(1)


def _figures(sums: Sums) -> dict[str, Sums]:
    """All figures, from sums (..., C), each (...)."""
    s = dict(zip(_COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        ce = {n: s[f"ce_{n}"] / s["positions"] for n in ("clean", "sae", "zero")}
        kl = {n: s[f"kl_{n}"] / s["positions"] for n in ("sae", "zero")}
        their_ce = {
            n: s[f"their_ce_{n}"] / s["their_ce_positions"] for n in ("clean", "sae", "zero")
        }
        their_kl = {n: s[f"their_kl_{n}"] / s["their_kl_positions"] for n in ("sae", "zero")}
        return {
            "ce_loss_score": _ce_score(ce),
            "kl_score": _kl_score(kl),
            "ce_loss_clean": ce["clean"],
            "ce_loss_sae": ce["sae"],
            "ce_loss_zero": ce["zero"],
            "kl_sae": kl["sae"],
            "kl_zero": kl["zero"],
            f"{PREFIX}ce_loss_score": _ce_score(their_ce),
            f"{PREFIX}ce_loss_without_sae": their_ce["clean"],
            f"{PREFIX}ce_loss_with_sae": their_ce["sae"],
            f"{PREFIX}ce_loss_with_ablation": their_ce["zero"],
            f"{PREFIX}kl_div_score": _kl_score(their_kl),
            f"{PREFIX}kl_div_with_sae": their_kl["sae"],
            f"{PREFIX}kl_div_with_ablation": their_kl["zero"],
        }


def _ce_score(ce: dict[str, Sums]) -> Sums:
    return (ce["zero"] - ce["sae"]) / (ce["zero"] - ce["clean"])


def _kl_score(kl: dict[str, Sums]) -> Sums:
    return (kl["zero"] - kl["sae"]) / kl["zero"]
