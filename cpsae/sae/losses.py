"""The objective (Eq. 1-2) as pure functions.

Names: B rows, D dimensions, M enabled features. All results are 0-d float32 (float64 for float64).
"""

from typing import Literal, NamedTuple

from torch import Tensor

from cpsae.sae.precision import widen


class Loss(NamedTuple):
    """What training minimises, and its parts by the names that metrics.jsonl gives them."""

    total: Tensor
    parts: dict[str, Tensor]
    """`mse` and whatever a kind adds; not yet times their weights."""


def reconstruction(
    x_BD: Tensor, x_hat_BD: Tensor, mse_reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """||x - x_hat||^2, summed or averaged over D (reading 13), averaged over B."""
    error_BD = widen(x_hat_BD) - widen(x_BD)
    total = error_BD.square().sum() / x_BD.shape[0]
    return total / x_BD.shape[1] if mse_reduction == "mean" else total


def sparsity(latents_BM: Tensor) -> Tensor:
    """||a||_1 averaged over B; reading 11 says which latents, competed or raw, come in."""
    return widen(latents_BM).abs().sum() / latents_BM.shape[0]
