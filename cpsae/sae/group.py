"""The processes that train one autoencoder together. Each holds a share of every batch; whatever
looks at a batch as a whole asks its group. `Alone` is the group of a process by itself;
cpsae/training/processes.py has the one of several.

Names: B rows of the whole batch, M enabled features.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Group(Protocol):
    """Processes that each hold a share of every batch. All members call its methods in the same
    order, with tensors of the same dtypes and, but for `gather`, `smallest` and `largest`, of the
    same shapes; all get the same result but for `largest`, whose numbers are of their own values.
    """

    size: int
    rank: int

    @property
    def is_leader(self) -> bool:
        """Whether this is the one process that writes files and reports."""
        ...

    def share(self, batch_size: int) -> tuple[int, int]:
        """From which row of such a batch to which one this process holds it."""
        ...

    def rows(self, own: int) -> int:
        """Rows of the whole batch, of which this process holds so many."""
        ...

    def count(self, own: int) -> int:
        """The sum over the members."""
        ...

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the members, value by value."""
        ...

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over the whole batch, tensor by tensor, from means over own rows."""
        ...

    def batch_mean(self, own: Tensor) -> Tensor:
        """The same of one tensor, within a loss that is no mean over rows: its gradient is that of
        `own`, so that the mean of the members' gradients is the gradient of the whole."""
        ...

    def maximum(self, tensor: Tensor) -> Tensor:
        """The largest over the members, value by value."""
        ...

    def smallest(self, values: Tensor) -> Tensor:
        """The smallest of all values of all members, 0-d; there must be one."""
        ...

    def largest(self, values_E: Tensor, count: int) -> Tensor:
        """Which own values are among the `count` largest of all members' together."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of the whole batch, in its order, from those that this process holds."""
        ...

    def of_leader(self, tensor: Tensor) -> Tensor:
        """The leader's tensor."""
        ...

    def told(self, content: Any) -> Any:
        """What the leader says, in JSON values; that of the others is ignored. They wait for it as
        long as it takes."""
        ...

    def any(self, own: bool) -> bool:
        """Whether it is so for any member."""
        ...

    def wait(self) -> None:
        """Until all members are here, also where the leader has much to write before."""
        ...


class Alone:
    """A process that trains by itself."""

    size = 1
    rank = 0
    is_leader = True

    def share(self, batch_size: int) -> tuple[int, int]:
        """All of it."""
        return 0, batch_size

    def rows(self, own: int) -> int:
        """Its own."""
        return own

    def count(self, own: int) -> int:
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

    def smallest(self, values: Tensor) -> Tensor:
        """Of its own."""
        return values.min()

    def largest(self, values_E: Tensor, count: int) -> Tensor:
        """Of its own."""
        return torch.topk(values_E, count, sorted=False).indices

    def gather(self, rows: Tensor) -> Tensor:
        """Its own."""
        return rows

    def of_leader(self, tensor: Tensor) -> Tensor:
        """Its own."""
        return tensor

    def told(self, content: Any) -> Any:
        """Its own."""
        return content

    def any(self, own: bool) -> bool:
        """Its own."""
        return own

    def wait(self) -> None:
        """For nobody."""


ALONE: Group = Alone()
