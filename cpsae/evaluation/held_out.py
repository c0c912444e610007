"""How well an autoencoder does on a store's held-out rows (METHOD section 6)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cpsae.errors import StoreError
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.metrics import Metrics, ReconstructionMetrics, decoder_cosine
from cpsae.store import Store, StorePart
from cpsae.tensors import tensor_of

_BATCH_ROWS = 2048


@dataclass(frozen=True)
class HeldOutResult:
    """Metrics over all evaluation rows that count, under the names of METHOD section 6."""

    metrics: dict[str, float | int | None]
    """Flat: what summary.json holds of it. None where a value is not defined: JSON has no NaN."""
    density_edges: list[float]
    density_counts: list[int]
    """Histogram of log10 firing rates of the features that fired at all."""

    def as_json(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        density = {"log10_edges": self.density_edges, "features": self.density_counts}
        return {**self.metrics, "density": density}


def measure(
    saes: Sequence[SparseAutoencoder],
    store: Store,
    norm_bound: float = math.inf,
    on_event: OnEvent = ignore,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[HeldOutResult] | None:
    """One pass over the evaluation part for all `saes`, which are on one device; None where
    `should_stop` said so on the way.

    Rows whose norm is over `norm_bound` count nowhere but in `explained_variance_all_rows`.
    Raises StoreError where nothing is held out or d differs.
    """
    part = store.evaluation
    if part is None or not part.chunks:
        raise StoreError(f"{store.path}: holds no evaluation rows; extract or write some")
    for sae in saes:
        if store.d != sae.d:
            raise StoreError(
                f"{store.path}: its rows have d = {store.d}, the autoencoder takes {sae.d}; "
                "give the store that it was trained on, or one of the same model and layer"
            )
    device = saes[0].W_enc.device
    sums = [(Metrics(sae.n_latents, device), ReconstructionMetrics()) for sae in saes]
    on_event(Started("evaluate", part.vectors, "row", kept=False))
    done = 0
    for rows, norms in _batches(part):
        if should_stop():
            return None
        x = tensor_of(rows).to(device).float()
        keep = torch.from_numpy(norms <= np.float64(norm_bound)).to(device)
        for sae, (counted, all_rows) in zip(saes, sums, strict=True):
            a = sae.encode(x)
            x_hat = sae.decode(a, like=x)
            all_rows.update(x, x_hat)
            counted.update(x[keep], x_hat[keep], a[keep])
        done += len(rows)
        on_event(Advanced(done))
    on_event(Finished())
    return [_result(sae, *both) for sae, both in zip(saes, sums, strict=True)]


def _batches(part: StorePart) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float32]]]:
    """Rows (B, d) with their norms (B,)."""
    for chunk in part.chunks:
        rows, norms = part.rows(chunk), part.norms(chunk)
        for start in range(0, len(rows), _BATCH_ROWS):
            yield rows[start : start + _BATCH_ROWS], norms[start : start + _BATCH_ROWS]


def nothing_held_out(sae: SparseAutoencoder) -> HeldOutResult:
    """The result where there is no row to measure: None for all that rows say."""
    return _result(sae, Metrics(sae.n_latents), ReconstructionMetrics())


def _result(
    sae: SparseAutoencoder, counted: Metrics, all_rows: ReconstructionMetrics
) -> HeldOutResult:
    values = {
        **counted.result(),
        "explained_variance_all_rows": all_rows.result()["explained_variance"],
        "decoder_cosine": decoder_cosine(sae.W_dec, sae.n_enabled),
        "evaluation_rows": counted.rows,
        "evaluation_skipped_rows": all_rows.rows - counted.rows,
    }
    edges, counts = counted.latents.density()
    defined = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return HeldOutResult(defined, edges, counts)
