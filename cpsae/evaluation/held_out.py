"""How well an autoencoder does on a store's held-out rows (METHOD section 6)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cpsae.errors import StoreError
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.metrics import Metrics, ReconstructionMetrics, decoder_cosine
from cpsae.store import Store
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


def evaluate_held_out(
    sae: SparseAutoencoder,
    store: Store,
    max_norm: float = 10.0,
    on_event: OnEvent = ignore,
) -> HeldOutResult:
    """One pass over the evaluation part, on the device that `sae` is on.

    Rows whose norm is over `max_norm` times the training rows' median count nowhere but in
    `explained_variance_all_rows`. Raises StoreError where nothing is held out or d differs.
    """
    part = store.evaluation
    if part is None or not part.chunks:
        raise StoreError(f"{store.path}: holds no evaluation rows; extract or write some")
    if store.d != sae.d:
        raise StoreError(
            f"{store.path}: its rows have d = {store.d}, the autoencoder takes {sae.d}; "
            "give the store that it was trained on, or one of the same model and layer"
        )
    if max_norm and not store.training.chunks:
        raise StoreError(
            f"{store.path}: holds no training rows yet, whose median norm max_norm needs; extract "
            "some first"
        )
    bound = max_norm * store.training.median_norm if max_norm else float("inf")
    device = sae.W_enc.device
    counted, all_rows = Metrics(sae.n_latents, device), ReconstructionMetrics()
    on_event(Started("evaluate", part.vectors, "row", kept=False))
    for chunk in part.chunks:
        rows, norms = part.rows(chunk), part.norms(chunk)
        for start in range(0, len(rows), _BATCH_ROWS):
            x = tensor_of(rows[start : start + _BATCH_ROWS]).to(device).float()
            kept = torch.from_numpy(norms[start : start + _BATCH_ROWS] <= np.float64(bound))
            a = sae.encode(x)
            x_hat = sae.decode(a, like=x)
            all_rows.update(x, x_hat)
            keep = kept.to(device)
            counted.update(x[keep], x_hat[keep], a[keep])
            on_event(Advanced(chunk.first_row + start + len(x)))
    on_event(Finished())
    return _result(sae, counted, all_rows)


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
