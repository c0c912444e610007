"""Explained variance at equal L0, by one evaluator for every library.

Names: B rows, D dimensions, N features, f encoder outputs after the ReLU, a what the decoder gets.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class ExplainedVariance:
    """1 - sum ||x - x_hat||^2 / sum ||x - mean||^2 in float64, and the mean number of latents that
    are not 0."""

    def __init__(self) -> None:
        self.rows, self._latents, self._error, self._square = 0, 0, 0.0, 0.0
        self._sum: Tensor | float = 0.0

    def update(self, x_BD: Tensor, x_hat_BD: Tensor, a_BN: Tensor) -> None:
        """Take in rows; what is measured does not hang on how rows are put into batches."""
        x, x_hat = x_BD.double(), x_hat_BD.double()
        self.rows += len(x)
        self._latents += int((a_BN != 0).sum())
        self._error += float((x - x_hat).square().sum())
        self._square += float(x.square().sum())
        self._sum = self._sum + x.sum(0)

    def result(self) -> tuple[float, float]:
        """L0 and explained variance."""
        mean = torch.as_tensor(self._sum) / self.rows
        spread = self._square - self.rows * float(mean.square().sum())
        return self._latents / self.rows, 1 - self._error / spread


def keep_of_row(f_BN: Tensor, k: int) -> Tensor:
    """The k largest of each row."""
    values, indices = f_BN.topk(k, dim=1)
    return torch.zeros_like(f_BN).scatter(1, indices, values)


def keep_of_batch(f_BN: Tensor, k: int) -> Tensor:
    """The k * B largest of the batch."""
    values, indices = f_BN.flatten().topk(k * len(f_BN))
    return torch.zeros_like(f_BN).flatten().scatter(0, indices, values).view_as(f_BN)


def at_l0(points: Sequence[tuple[float, float]], l0: float) -> float | None:
    """Explained variance at an L0, on straight lines in log L0 between (L0, explained variance) of
    runs; None outside of them."""
    ordered = sorted(points)
    for (left, below), (right, above) in zip(ordered, ordered[1:], strict=False):
        if left <= l0 <= right:
            logs = torch.tensor([left, l0, right], dtype=torch.float64).log()
            share = float((logs[1] - logs[0]) / (logs[2] - logs[0])) if right > left else 0.0
            return below + share * (above - below)
    return None
