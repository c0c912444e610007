"""Processes that share each batch: every one holds all weights and a contiguous part of its rows.

Whatever their number, every batch is the same.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cpsae.sae.group_parts import WholeDictionary
from cpsae.training.exchange import Processes
from cpsae.workers import Worker


class SharedBatch(Processes, WholeDictionary):
    """A `Group`, whose methods do as it says."""

    def __init__(self, worker: Worker, device: torch.device, batch_size: int) -> None:
        """batch_size: rows of every batch. Raises GroupError where the others do not come."""
        super().__init__(worker, device)
        self.batch_size = batch_size
        first, end = self.share(batch_size)
        self._weight = (end - first) / batch_size

    def share(self, batch_size: int) -> tuple[int, int]:
        """As `Group`; lengths differ by one at most."""
        return batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size

    def rows(self, own: int) -> int:  # noqa: ARG002
        """As `Group`."""
        return self.batch_size

    def total(self, tensor: Tensor) -> Tensor:
        """As `Group`."""
        return self.reduced(tensor)

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Group`, all tensors of one dtype at once."""
        return self.summed(tensors, self._weight)

    def batch_mean(self, own: Tensor) -> Tensor:
        """As `Group`."""
        whole = self.mean({"": own})[""]
        made: Tensor = _Instead.apply(own, whole)  # type: ignore[no-untyped-call]
        return made

    def maximum(self, tensor: Tensor) -> Tensor:
        """As `Group`."""
        if tensor.dtype == torch.bool:
            return self.reduced(tensor.to(torch.uint8), dist.ReduceOp.MAX).bool()
        return self.reduced(tensor, dist.ReduceOp.MAX)

    def gather(self, rows: Tensor) -> Tensor:
        """As `Group`."""
        return self.joined(rows.detach(), self.lengths(len(rows)))

    def combined(
        self,
        gradients: Mapping[str, Tensor],
        per_feature: Collection[str],  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """As `Group`: means weighted by rows."""
        return self.mean(gradients)

    def hand_out(self, tensor: Tensor | None, own: Tensor, per_feature: bool) -> None:  # noqa: ARG002
        """As `Group`."""
        self.hand_out_whole(tensor, own)


class _Instead(torch.autograd.Function):
    """Another value, with the gradient of the first."""

    @staticmethod
    def forward(_ctx: Any, _own: Tensor, other: Tensor) -> Tensor:
        return other.clone()

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
