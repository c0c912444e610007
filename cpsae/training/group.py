"""The processes that train one autoencoder together. So far there is one kind of group: a process
by itself. The seams at which sums over processes go are the calls of its methods.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Group(Protocol):
    """Processes that each hold a share of every batch. Collective calls: all members make them in
    the same order."""

    size: int
    rank: int

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The average over the members, tensor by tensor."""
        ...

    def maximum(self, tensor: Tensor) -> Tensor:
        """The largest over the members, value by value."""
        ...


class Alone:
    """A process that trains by itself."""

    size = 1
    rank = 0

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its own."""
        return dict(tensors)

    def maximum(self, tensor: Tensor) -> Tensor:
        """Its own."""
        return tensor
