"""What a process answers by itself: for the batch, if it holds all rows; for the dictionary, if it
holds all features.

Names as in cpsae/sae/group.py.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

BLOCK = 2**24
"""Numbers of a tensor that go to a file, or from one process to all, at once: 64 MB of float32."""


class WholeBatch:
    """A process that holds all rows of every batch."""

    def share(self, batch_size: int) -> tuple[int, int]:
        """All of it."""
        return 0, batch_size

    def rows(self, own: int) -> int:
        """Its own."""
        return own

    def total(self, tensor: Tensor) -> Tensor:
        """Its own."""
        return tensor

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its own."""
        return dict(tensors)

    def batch_mean(self, own: Tensor) -> Tensor:
        """Its own."""
        return own

    def maximum(self, tensor: Tensor) -> Tensor:
        """Its own."""
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """Its own."""
        return rows


class WholeDictionary:
    """A process that holds all features."""

    splits = False

    def features(self, m: int) -> int:
        """All of them."""
        return m

    def whole(self, own: int) -> int:
        """Its own."""
        return own

    def numbers(self, own: Tensor) -> Tensor:
        """The same."""
        return own

    def all_features(self, own: Tensor) -> Tensor:
        """Its own."""
        return own

    def held_of(self, features_K: Tensor) -> tuple[Any, Tensor]:
        """All of them."""
        return slice(None), features_K

    def part(self, tensor: Tensor) -> Tensor:
        """All of it."""
        return tensor

    def once(self, tensor: Tensor) -> Tensor:
        """All of it."""
        return tensor

    def sum_of_features(self, own: Tensor) -> Tensor:
        """Its own."""
        return own

    def mean_of_features(self, own: Tensor) -> Tensor:
        """Of its own."""
        return own.mean(dim=0)

    def softmax(self, scores_Bm: Tensor, out: Tensor | None = None) -> Tensor:
        """Of its own."""
        return torch.softmax(scores_Bm, dim=-1, out=out)

    def largest_in_rows(self, values_Bm: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Of its own."""
        found = torch.topk(values_Bm, min(k, values_Bm.shape[-1]), dim=-1, sorted=False)
        return found.values, found.indices

    def norm(self, gradients: Mapping[str, Tensor], per_feature: Collection[str]) -> Tensor:  # noqa: ARG002
        """Of its own."""
        return torch.nn.utils.get_total_norm(list(gradients.values()))

    def blocks(self, own: Tensor, n: int, features: int | None) -> Iterator[Tensor]:  # noqa: ARG002
        """Its own."""
        if own.dim() == 0 or own.numel() == 0:
            return iter([own])
        rows = max(1, BLOCK * len(own) // own.numel())
        return iter(torch.split(own, rows))
