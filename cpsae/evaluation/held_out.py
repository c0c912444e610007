"""How well an autoencoder does on a store's held-out rows (METHOD section 6)."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cpsae.errors import StoreError
from cpsae.evaluation.bootstrap import RESAMPLES, SEED, Sums, intervals
from cpsae.evaluation.rows import HeldOutRows, RowSlice
from cpsae.evaluation.saebench import PREFIX, Batch, SaeBenchSums
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.evaluation.sums import SumsByUnit
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.metrics import COLUMNS, FiringCounts, decoder_cosine, figures, row_values
from cpsae.store import Store
from cpsae.tensors import tensor_of


@dataclass(frozen=True)
class HeldOutResult:
    """Metrics over all evaluation rows that count, under the names of METHOD section 6."""

    metrics: dict[str, float | int | None]
    """Flat: what summary.json holds of it. None where a value is not defined: JSON has no NaN."""
    intervals: dict[str, list[float] | None]
    """[low, high] of those that are means over rows, or ratios of means, by `<name>_ci`."""
    saebench: dict[str, float | int | None]
    """SAEBench's own figures, by `saebench/<name>`."""
    density_edges: list[float]
    density_counts: list[int]
    """Histogram of log10 firing rates of the features that fired at all."""
    basis: dict[str, Any] = field(default_factory=dict)
    """What the figures are of: how many contexts, and which tokens are special."""

    def as_json(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        density = {"log10_edges": self.density_edges, "features": self.density_counts}
        figures = {**self.metrics, **self.intervals, **self.saebench}
        return {**figures, **self.basis, "density": density}


def measure(
    saes: Sequence[SparseAutoencoder],
    store: Store,
    norm_bound: float = math.inf,
    on_event: OnEvent = ignore,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    contexts: int | None = None,
    special: SpecialTokens | None = None,
) -> list[HeldOutResult] | None:
    """One pass over the evaluation part for all `saes`, which are on one device; None where
    `should_stop` said so on the way.

    Rows whose norm is over `norm_bound` count nowhere but in `explained_variance_all_rows` and in
    SAEBench's figures, which leave out rows of `special` tokens (by default those that the store
    was packed with). contexts: the first of them alone. Raises StoreError where nothing is held out
    or d differs; SettingsError where there are no contexts to choose from.
    """
    special = special or SpecialTokens.of_store(store.manifest)
    held_out = HeldOutRows(store, special, contexts)
    for sae in saes:
        if store.d != sae.d:
            raise StoreError(
                f"{store.path}: its rows have d = {store.d}, the autoencoder takes {sae.d}; "
                "give the store that it was trained on, or one of the same model and layer"
            )
    device = saes[0].W_enc.device
    means = held_out.mean(norm_bound), held_out.mean(math.inf)
    around = tuple(torch.from_numpy(mean).to(device) for mean in means)
    measured = [_Measured(sae, held_out.units, norm_bound, around) for sae in saes]
    on_event(Started("evaluate", held_out.rows, "row", kept=False))
    done = 0
    for _, batch in itertools.groupby(held_out.slices(), lambda piece: piece.batch):
        slices = list(batch)
        known = Batch(slices, device)
        for piece in slices:
            if should_stop():
                return None
            x = tensor_of(piece.rows).to(device).float()
            for each in measured:
                each.update(piece, known, x)
            done += len(piece.rows)
            on_event(Advanced(done))
        for each in measured:
            each.saebench.end_batch(known)
    on_event(Finished())
    return [each.result(_basis(held_out)) for each in measured]


def nothing_held_out(sae: SparseAutoencoder) -> HeldOutResult:
    """The result where there is no row to measure: None for all that rows say."""
    nowhere = torch.zeros(sae.d, dtype=torch.float64)
    return _Measured(sae, 0, math.inf, (nowhere, nowhere)).result({})


def _basis(held_out: HeldOutRows) -> dict[str, Any]:
    over = "contexts" if held_out.of_contexts else "rows"
    return {
        "evaluation_contexts": held_out.units if held_out.of_contexts else None,
        "special_tokens": held_out.special.as_json(),
        "bootstrap": {"over": over, "resamples": RESAMPLES, "seed": SEED},
    }


class _Measured:
    """The sums of one autoencoder."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        units: int,
        norm_bound: float,
        means: tuple[torch.Tensor, ...],
    ) -> None:
        """means: (D,) float64 on the autoencoder's device, of the rows that count and of all."""
        self._sae = sae
        self._bound = np.float64(norm_bound)
        self._mean, self._mean_of_all = means
        self._counted = SumsByUnit(units, len(COLUMNS))
        self._all_rows = SumsByUnit(units, len(COLUMNS))
        self._fired = FiringCounts(sae.n_latents, sae.W_enc.device)
        self.saebench = SaeBenchSums(sae, units)

    @torch.no_grad()
    def update(self, piece: RowSlice, batch: Batch, x_BD: torch.Tensor) -> None:
        """Take in the rows of a slice."""
        a = self._sae.encode(x_BD)
        x_hat = self._sae.decode(a, like=x_BD)
        counted = piece.norms <= self._bound
        values = row_values(x_BD, x_hat, a, self._mean)
        self._counted.add(piece.units, counted, values)
        values[:, COLUMNS.index("spread")] = (x_BD.double() - self._mean_of_all).square().sum(1)
        self._all_rows.add(piece.units, np.ones_like(counted), values)
        self._fired.update(a != 0, counted)
        self.saebench.update(piece, batch, x_BD, x_hat, a)

    def result(self, basis: dict[str, Any]) -> HeldOutResult:
        """What they come to."""
        sums = np.hstack([self._counted.result(), self._all_rows.result(), self.saebench.sums])
        rows = int(self._counted.result()[:, 0].sum())
        skipped = int(self._all_rows.result()[:, 0].sum()) - rows
        values = {name: float(value) for name, value in self._figures(sums.sum(0)).items()}
        ours = {
            **{name: value for name, value in values.items() if not name.startswith(PREFIX)},
            **self._fired.result(),
            "decoder_cosine": decoder_cosine(self._sae.W_dec, self._sae.n_enabled),
            "evaluation_rows": rows,
            "evaluation_skipped_rows": skipped,
        }
        theirs = {name: value for name, value in values.items() if name.startswith(PREFIX)}
        found = intervals(sums, self._figures)
        return HeldOutResult(
            defined(ours),
            {f"{name}_ci": middle for name, middle in found.items()},
            defined({**theirs, **self.saebench.others()}),
            *self._fired.density(),
            basis,
        )

    def _figures(self, sums: Sums) -> dict[str, Sums]:
        """All that is a mean over rows, or a ratio of means, from the sums of everything."""
        width, d = len(COLUMNS), self._sae.d
        counted, all_rows = sums[..., :width], sums[..., width : 2 * width]
        everywhere = figures(all_rows, d)["explained_variance"]
        return {
            **figures(counted, d),
            "explained_variance_all_rows": everywhere,
            **self.saebench.figures(sums[..., 2 * width :]),
        }


def defined(values: Mapping[str, float | int]) -> dict[str, float | int | None]:
    """None in place of what is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
