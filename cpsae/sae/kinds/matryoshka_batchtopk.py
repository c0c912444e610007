"""Matryoshka BatchTopK: the first features must reconstruct by themselves, at several sizes
(Bussmann et al. 2025, arXiv 2503.17547).

Names: B rows, D dimensions, M enabled features.
"""

from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from cpsae.sae.batch_topk import BatchTopKKind, BatchTopKSettings
from cpsae.sae.kind import Latents, Weights
from cpsae.sae.losses import Loss
from cpsae.sae.precision import widen


class MatryoshkaSettings(BatchTopKSettings):
    """Sizes of the dictionaries that are nested in it."""

    prefixes: tuple[float, ...] = Field((1 / 32, 3 / 32, 7 / 32, 15 / 32), min_length=1)
    """Parts of the dictionary, rising, that reconstruct by themselves beside the whole."""

    @field_validator("prefixes")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)) or not 0 < value[0] <= value[-1] < 1:
            raise ValueError("expected rising numbers between 0 and 1, like [0.1, 0.3]")
        return value


class MatryoshkaBatchTopK(BatchTopKKind):
    """BatchTopK whose squared error is the mean of those of the whole and of each prefix of it.

    Prefixes are of all n features; one that is not enabled as far is left out.
    """

    name = "matryoshka-batchtopk"
    works_split = True
    Settings = MatryoshkaSettings
    settings: MatryoshkaSettings
    products: ClassVar[int] = 8

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:
        """Parts: mse, of the whole alone; nested, the mean over all sizes; aux."""
        mse = self.mse(x_BD, x_hat_BD)
        errors = [mse]
        last, shorter = latents.competed.shape[1], widen(x_hat_BD)
        for size in map(self.group.features, self._sizes(self.group.whole(last))):
            left_out = latents.competed[:, size:last] @ w["w_dec"][size:last]
            shorter = shorter - self.group.sum_of_features(left_out)
            errors.append(self.mse(x_BD, shorter))
            last = size
        nested = sum(errors[1:], start=mse) / len(errors)
        aux = self.auxiliary(w, x_BD, latents, x_hat_BD)
        total = nested + self.settings.aux_coefficient * aux
        return Loss(total, {"mse": mse, "nested": nested, "aux": aux})

    def _sizes(self, enabled: int) -> list[int]:
        """Of the prefixes that are smaller than what is enabled, the largest first."""
        sizes = {max(1, round(part * self.plan.n)) for part in self.settings.prefixes}
        return sorted((size for size in sizes if size < enabled), reverse=True)
