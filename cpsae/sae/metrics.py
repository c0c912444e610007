"""The held-out metrics of METHOD section 6: what each row adds to them, and what the sums come to.

Sums are float64, without waiting for a GPU on the way. Names: B rows, D dimensions, N features,
C columns (the sums), a latents.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpsae.sae.initialization import unit_rows

Sums = npt.NDArray[np.float64]

COLUMNS = (
    *("rows", "error", "spread", "cosine", "dot", "x_hat_square"),
    *("l0", "l0_eff", "l1"),
)
"""What is summed over rows, in the order of the columns of `row_values`."""

_EFFECTIVE = 0.01
_DENSE = 0.1


@torch.no_grad()
def row_values(x_BD: Tensor, x_hat_BD: Tensor, a_BN: Tensor, mean_D: Tensor) -> Tensor:
    """What each row adds to the sums: (B, C) float64.

    x, x_hat: raw vectors and their raw reconstructions; a: latents as `encode` gives them; mean:
    float64, that of all rows that count, which `spread` is around.
    """
    x, x_hat = x_BD.double(), x_hat_BD.double()
    dot, x_hat_square = (x * x_hat).sum(1), x_hat.square().sum(1)
    norms = (x.square().sum(1) * x_hat_square).sqrt()
    sizes = a_BN.abs()
    effective = sizes > _EFFECTIVE * sizes.amax(1, keepdim=True)
    columns = {
        "rows": torch.ones_like(dot),
        "error": (x - x_hat).square().sum(1),
        "spread": (x - mean_D).square().sum(1),
        "cosine": dot / norms.clamp_min(torch.finfo(norms.dtype).tiny),
        "dot": dot,
        "x_hat_square": x_hat_square,
        "l0": torch.count_nonzero(sizes, 1).double(),
        "l0_eff": torch.count_nonzero(effective, 1).double(),
        "l1": sizes.sum(1, dtype=torch.float64),
    }
    return torch.stack([columns[name] for name in COLUMNS], dim=1)


def figures(sums: Sums, d: int) -> dict[str, Sums]:
    """The metrics that follow from sums (..., C) of the columns, each (...). NaN or infinite where
    one is not defined: no rows, no variance, or reconstructions of 0."""
    s = dict(zip(COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "l0": s["l0"] / s["rows"],
            "l0_eff": s["l0_eff"] / s["rows"],
            "l1": s["l1"] / s["rows"],
            "explained_variance": 1 - s["error"] / s["spread"],
            "mse": s["error"] / (s["rows"] * d),
            "cosine": s["cosine"] / s["rows"],
            "relative_bias": s["x_hat_square"] / s["dot"],
        }


class FiringCounts:
    """How often each feature fired, and what follows from that."""

    def __init__(self, n: int, device: torch.device | str = "cpu") -> None:
        """n: features of the dictionary, enabled or not; device: of the latents."""
        self.rows = 0
        self.counts = torch.zeros(n, dtype=torch.int64, device=device)
        """(N,) rows in which each feature fired."""

    @torch.no_grad()
    def update(self, fired_BN: Tensor, counted_B: npt.NDArray[np.bool_]) -> None:
        """Take in which features fired, in those of the rows that count."""
        self.rows += int(counted_B.sum())
        counted = torch.from_numpy(counted_B).to(fired_BN.device, non_blocking=True)
        self.counts += (fired_BN & counted[:, None]).sum(0)

    @property
    def rates(self) -> Tensor:
        """(N,) float64: the share of rows in which each feature fired."""
        return self.counts.double() / max(self.rows, 1)

    def result(self) -> dict[str, float]:
        """`dead`, `dense`, and `activation_variance`: the variance over features of the firing
        rates (reading 17). NaN without rows."""
        if self.rows == 0:
            return dict.fromkeys(("dead", "dense", "activation_variance"), math.nan)
        return {
            "dead": float((self.counts == 0).double().mean()),
            "dense": float((self.rates > _DENSE).double().mean()),
            "activation_variance": float(self.rates.var(correction=0)),
        }

    def density(self, bins: int = 50, lowest: float = -6.0) -> tuple[list[float], list[int]]:
        """Histogram of log10 firing rates: `bins` + 1 edges from `lowest` to 0, `bins` counts.

        Features that never fired are in no bin; rates under the lowest edge are in the first.
        """
        edges = torch.linspace(lowest, 0, bins + 1, dtype=torch.float64)
        rates = self.rates.cpu()
        logs = rates[rates > 0].log10().clamp(lowest, 0)
        counts = torch.histogram(logs, edges).hist
        return edges.tolist(), [int(count) for count in counts]


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
