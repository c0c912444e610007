"""SAEBench's own definitions (its core evaluation, release 0.6.0), under its own names.

It looks at batches of 16 contexts, and what some of its figures mean depends on that: a batch's
mean, a batch's number of tokens. Its tokens are those that are not special, outliers and all. Where
it computes in the model's dtype, these are float32 with float64 sums.

Names: B rows of a slice, D dimensions, N features, C columns, a latents.
"""

import math

import numpy as np
import torch
from torch import Tensor

from cpsae.evaluation.bootstrap import Sums
from cpsae.evaluation.rows import RowSlice
from cpsae.evaluation.sums import SumsByUnit
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.metrics import FiringCounts, decoder_cosine
from cpsae.tensors import tensor_of

PREFIX = "saebench/"

_COLUMNS = (
    *("rows", "share", "error_share", "square_share", "legacy", "cossim", "l0", "l1"),
    *("norm_in", "norm_out", "norm_ratio"),
)
_SMALLEST_NORM = 1e-4
"""Below it, a vector's norm is taken as 1 where it divides another."""


class Batch:
    """What has to be known of a batch before its rows are measured."""

    def __init__(self, slices: list[RowSlice], device: torch.device) -> None:
        self.tokens = sum(int((~piece.special).sum()) for piece in slices)
        """Rows that count here."""
        total = torch.zeros(slices[0].rows.shape[1], dtype=torch.float64, device=device)
        for piece in slices:
            rows = tensor_of(piece.rows[~piece.special]).to(device)
            total += rows.sum(0, dtype=torch.float64)
        self.mean_D = total / max(self.tokens, 1)


class SaeBenchSums:
    """The figures of one autoencoder that need no language model."""

    def __init__(self, sae: SparseAutoencoder, units: int) -> None:
        device = sae.W_enc.device
        self._sae = sae
        self._sums = SumsByUnit(units, len(_COLUMNS))
        self._fired = FiringCounts(sae.n_latents, device)
        self._biases: list[Tensor] = []
        self._bias = torch.zeros(2, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(
        self, piece: RowSlice, batch: Batch, x_BD: Tensor, x_hat_BD: Tensor, a_BN: Tensor
    ) -> None:
        """Take in a slice: raw rows, their raw reconstructions, and latents."""
        counted = ~piece.special
        if not counted.any():
            return
        x, x_hat = x_BD.double(), x_hat_BD.double()
        self._sums.add(piece.units, counted, _row_values(x, x_hat, a_BN, batch))
        self._fired.update(a_BN > 0, counted)
        keep = torch.from_numpy(counted).to(x.device)
        above_and_below = torch.stack([x_hat.square().sum(1), (x * x_hat).sum(1)])
        self._bias += torch.where(keep, above_and_below, 0.0).sum(1)

    def end_batch(self, batch: Batch) -> None:
        """The batch's last slice was taken in."""
        if not batch.tokens:
            return
        self._biases.append(self._bias[0] / self._bias[1])
        self._bias = torch.zeros_like(self._bias)

    @property
    def sums(self) -> Sums:
        """(U, C)."""
        return self._sums.result()

    def figures(self, sums: Sums) -> dict[str, Sums]:
        """Those that are means over rows, or ratios of them, from sums (..., C), each (...)."""
        s = dict(zip(_COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            residual, square = s["error_share"] / s["share"], s["square_share"] / s["share"]
            total = square - (square / self._sae.d) ** 2
            values = {
                "explained_variance": 1 - residual / total,
                "explained_variance_legacy": s["legacy"] / s["rows"],
                "mse": s["error_share"] / s["rows"],
                "cossim": s["cossim"] / s["rows"],
                "l0": s["l0"] / s["rows"],
                "l1": s["l1"] / s["rows"],
                "l2_norm_in": s["norm_in"] / s["rows"],
                "l2_norm_out": s["norm_out"] / s["rows"],
                "l2_ratio": s["norm_ratio"] / s["rows"],
            }
        return {PREFIX + name: value for name, value in values.items()}

    def others(self) -> dict[str, float]:
        """The rest: of batches, of features."""
        biases = torch.stack(self._biases) if self._biases else torch.tensor([math.nan])
        rates = self._fired.rates
        values = {
            "relative_reconstruction_bias": float(biases.mean()),
            "average_max_encoder_cosine_sim": decoder_cosine(self._sae.W_enc.T),
            "average_max_decoder_cosine_sim": decoder_cosine(self._sae.W_dec),
            "frac_alive": _share(rates > 0),
            "freq_over_1_percent": _share(rates > 0.01),
            "freq_over_10_percent": _share(rates > 0.1),
            "normalized_freq_over_1_percent": _mass(rates, 0.01),
            "normalized_freq_over_10_percent": _mass(rates, 0.1),
        }
        if not self._fired.rows:
            values |= {name: math.nan for name in values if "freq" in name or "frac" in name}
        return {PREFIX + name: value for name, value in values.items()}


def _row_values(x: Tensor, x_hat: Tensor, a_BN: Tensor, batch: Batch) -> Tensor:
    """What each row adds: (B, C) float64."""
    share = 1 / batch.tokens
    error, square = (x - x_hat).square().sum(1), x.square().sum(1)
    norm_in, norm_out = square.sqrt(), x_hat.square().sum(1).sqrt()
    columns = {
        "rows": torch.ones_like(error),
        "share": torch.full_like(error, share),
        "error_share": error * share,
        "square_share": square * share,
        "legacy": 1 - error / (x - batch.mean_D).square().sum(1),
        "cossim": (x * x_hat).sum(1) / (norm_in * norm_out),
        "l0": torch.count_nonzero(a_BN, 1).double(),
        "l1": a_BN.sum(1, dtype=torch.float64),
        "norm_in": norm_in,
        "norm_out": norm_out,
        "norm_ratio": norm_out / torch.where(norm_in < _SMALLEST_NORM, 1.0, norm_in),
    }
    return torch.stack([columns[name] for name in _COLUMNS], dim=1)


def _share(of_features_N: Tensor) -> float:
    return float(of_features_N.double().mean())


def _mass(rates_N: Tensor, over: float) -> float:
    """The share of all firing that features with rates above `over` have."""
    total = rates_N.sum()
    return float(rates_N[rates_N > over].sum() / total) if total > 0 else 0.0
