"""The held-out metrics of METHOD section 6, in one pass and without waiting for a GPU on the way.

Values are float32, sums float64. Names: B rows, D dimensions, N features, a latents.
"""

import math

import torch
from torch import Tensor

from cpsae.sae.initialization import unit_rows

_EFFECTIVE = 0.01
_DENSE = 0.1


class ReconstructionMetrics:
    """explained_variance, mse, cosine and relative_bias of raw vectors and reconstructions."""

    def __init__(self) -> None:
        self.rows = 0
        self._shift_D: Tensor | None = None

    @torch.no_grad()
    def update(self, x_BD: Tensor, x_hat_BD: Tensor) -> None:
        """Take in rows; both (B, D) raw. Batches of no rows are ignored."""
        if x_BD.shape[0] == 0:
            return
        x, x_hat = x_BD.double(), x_hat_BD.double()
        # Sums around a point near the mean: around 0 they would cancel where the mean is large.
        shifted = x - (self._start(x) if self._shift_D is None else self._shift_D)
        dots, x_hat_squares = (x * x_hat).sum(1), x_hat.square().sum(1)
        norms = (x.square().sum(1) * x_hat_squares).sqrt()
        self.rows += x.shape[0]
        self._shifted_D += shifted.sum(0)
        self._shifted_square += shifted.square().sum()
        self._error += (x - x_hat).square().sum()
        self._cosine += (dots / norms.clamp_min(torch.finfo(norms.dtype).tiny)).sum()
        self._dot += dots.sum()
        self._x_hat_square += x_hat_squares.sum()

    def result(self) -> dict[str, float]:
        """The four values. NaN where one is not defined: no rows, no variance, or x_hat = 0."""
        if self._shift_D is None:
            return dict.fromkeys(("explained_variance", "mse", "cosine", "relative_bias"), math.nan)
        spread = self._shifted_square - self._shifted_D.square().sum() / self.rows
        elements = self.rows * self._shift_D.shape[0]
        return {
            "explained_variance": 1 - _ratio(float(self._error), float(spread)),
            "mse": float(self._error) / elements,
            "cosine": float(self._cosine) / self.rows,
            "relative_bias": _ratio(float(self._x_hat_square), float(self._dot)),
        }

    def _start(self, x: Tensor) -> Tensor:
        shift_D = self._shift_D = x.mean(0)
        self._shifted_D = torch.zeros_like(shift_D)
        zero = torch.zeros((), dtype=torch.float64, device=x.device)
        self._shifted_square, self._error, self._cosine = zero.clone(), zero.clone(), zero.clone()
        self._dot, self._x_hat_square = zero.clone(), zero.clone()
        return shift_D


LATENT_NAMES = ("l0", "l0_eff", "l1", "dead", "dense", "activation_variance")


class LatentMetrics:
    """What `LATENT_NAMES` lists of latents, and how often each feature fired."""

    def __init__(self, n: int, device: torch.device | str = "cpu") -> None:
        self.rows = 0
        self.firing_counts = torch.zeros(n, dtype=torch.int64, device=device)
        """(N,) rows in which each feature was not exactly 0."""
        self._effective = torch.zeros((), dtype=torch.int64, device=device)
        self._l1 = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, a_BN: Tensor) -> None:
        """Take in latents (B, N) as `encode` gives them. Batches of no rows are ignored."""
        if a_BN.shape[0] == 0:
            return
        sizes = a_BN.abs()
        self.rows += a_BN.shape[0]
        self.firing_counts += (sizes > 0).sum(0)
        largest = sizes.amax(1, keepdim=True)
        self._effective += torch.count_nonzero(sizes > _EFFECTIVE * largest)
        self._l1 += sizes.sum(dtype=torch.float64)

    @property
    def firing_rates(self) -> Tensor:
        """(N,) float64: the share of rows in which each feature fired."""
        return self.firing_counts.double() / max(self.rows, 1)

    def result(self) -> dict[str, float]:
        """The six values; l0_eff counts latents above 1 % of their row's largest, and
        activation_variance is the variance over features of the firing rates (reading 17)."""
        if self.rows == 0:
            return dict.fromkeys(LATENT_NAMES, math.nan)
        return {
            "l0": float(self.firing_counts.sum()) / self.rows,
            "l0_eff": float(self._effective) / self.rows,
            "l1": float(self._l1) / self.rows,
            "dead": float((self.firing_counts == 0).double().mean()),
            "dense": float((self.firing_rates > _DENSE).double().mean()),
            "activation_variance": float(self.firing_rates.var(correction=0)),
        }

    def density(self, bins: int = 50, lowest: float = -6.0) -> tuple[list[float], list[int]]:
        """Histogram of log10 firing rates: `bins` + 1 edges from `lowest` to 0, `bins` counts.

        Features that never fired are in no bin; rates under the lowest edge are in the first.
        """
        edges = torch.linspace(lowest, 0, bins + 1, dtype=torch.float64)
        rates = self.firing_rates.cpu()
        logs = rates[rates > 0].log10().clamp(lowest, 0)
        counts = torch.histogram(logs, edges).hist
        return edges.tolist(), [int(count) for count in counts]


class Metrics:
    """All of them together."""

    def __init__(self, n: int, device: torch.device | str = "cpu") -> None:
        """n: features of the dictionary, enabled or not; device: of the batches."""
        self.reconstruction = ReconstructionMetrics()
        self.latents = LatentMetrics(n, device)

    def update(self, x_BD: Tensor, x_hat_BD: Tensor, a_BN: Tensor) -> None:
        """Take in raw rows, their raw reconstructions, and latents as `encode` gives them."""
        self.reconstruction.update(x_BD, x_hat_BD)
        self.latents.update(a_BN)

    @property
    def rows(self) -> int:
        """Rows taken in."""
        return self.latents.rows

    def result(self) -> dict[str, float]:
        """Names and values as METHOD section 6 gives them."""
        return {**self.latents.result(), **self.reconstruction.result()}


@torch.no_grad()
def decoder_cosine(w_dec_ND: Tensor, n_enabled: int | None = None, rows: int = 1024) -> float:
    """Mean over enabled features of the cosine with their nearest neighbour: 1 is full collapse.

    w_dec: (N, D) decoder rows of any norm. `rows` bounds the memory: (rows, N) cosines at a time.
    NaN with fewer than two features.
    """
    w = unit_rows(w_dec_ND[:n_enabled].float())
    m = w.shape[0]
    if m < 2:
        return math.nan
    total = 0.0
    for start in range(0, m, rows):
        cosines = w[start : start + rows] @ w.T
        here = torch.arange(cosines.shape[0], device=w.device)
        cosines[here, here + start] = -math.inf
        total += float(cosines.amax(1).double().sum())
    return total / m


def _ratio(above: float, below: float) -> float:
    return above / below if below != 0 else math.nan
