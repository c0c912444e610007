"""The processes that train one autoencoder together. They share each batch, or the dictionary; what
is about the whole of either is asked of their group. `Alone` is the group of a process by itself;
those of several are in cpsae/training/shared_batch.py and cpsae/training/shared_dictionary.py.

Names: B rows of the whole batch, M enabled features, m those that a process holds, D dimensions.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from cpsae.sae.group_parts import WholeBatch, WholeDictionary


class Group(Protocol):
    """Processes of which each holds some rows of every batch and the whole dictionary or, where the
    group `splits`, all rows and some features. Of features, the first so many of the dictionary are
    the first of each process.

    All members call its methods in the same order, with tensors of the same dtypes; all get the
    same result where nothing else is said.
    """

    size: int
    rank: int
    splits: bool
    """Whether each holds features, not rows."""

    @property
    def is_leader(self) -> bool:
        """Whether this is the one process that writes files and reports."""
        ...

    # --- rows of a batch

    def share(self, batch_size: int) -> tuple[int, int]:
        """From which row of such a batch to which one this process holds it."""
        ...

    def rows(self, own: int) -> int:
        """Rows of the whole batch, of which this process holds so many."""
        ...

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the batch, value by value, of sums over own rows."""
        ...

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over the whole batch, tensor by tensor, from means over own rows."""
        ...

    def batch_mean(self, own: Tensor) -> Tensor:
        """The same of one tensor, within a loss that is no mean over rows: its gradient is that of
        `own`, so that the mean of the members' gradients is the gradient of the whole."""
        ...

    def maximum(self, tensor: Tensor) -> Tensor:
        """The largest over the batch, value by value, from the largest of own rows."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of the whole batch, in its order, from those that this process holds."""
        ...

    # --- features of the dictionary

    def features(self, m: int) -> int:
        """How many of the first m features of the dictionary this process holds."""
        ...

    def whole(self, own: int) -> int:
        """Features of all members together, of which this one holds so many."""
        ...

    def numbers(self, own: Tensor) -> Tensor:
        """Numbers in the dictionary of features, from their numbers in this process."""
        ...

    def all_features(self, own: Tensor) -> Tensor:
        """Numbers in the dictionary, ascending, of the features that each member names by its own,
        ascending."""
        ...

    def held_of(self, features_K: Tensor) -> tuple[Any, Tensor]:
        """Which of these features of the dictionary this process holds, as an index of (K,), and
        their numbers here."""
        ...

    def part(self, tensor: Tensor) -> Tensor:
        """Own features' rows of a tensor that has all features'."""
        ...

    def once(self, tensor: Tensor) -> Tensor:
        """What each adds to a `sum_of_features` for the sum to hold the tensor once: a share of
        it. All have the same tensor; its gradient is the sum of the members' gradients."""
        ...

    def sum_of_features(self, own: Tensor) -> Tensor:
        """The sum over the dictionary, from the sum over own features. Within a loss, which all
        members have alike; its gradient is that of `own`."""
        ...

    def mean_of_features(self, own: Tensor) -> Tensor:
        """The mean over the dictionary of a row for each feature, (m, ...), own."""
        ...

    def softmax(self, scores_Bm: Tensor, out: Tensor | None = None) -> Tensor:
        """Over all features, in each row; own features' part (B, m)."""
        ...

    def largest_in_rows(self, values_Bm: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k largest of all features in each row, all where there are fewer: own ones, and their
        numbers here, both (B, K). A row that has fewer than K of its own is filled up with zeros,
        for features of its own that are not among them."""
        ...

    # --- both

    def count(self, own: int) -> int:
        """The sum over the members."""
        ...

    def smallest(self, values: Tensor) -> Tensor:
        """The smallest of all values of all members, 0-d; there must be one."""
        ...

    def largest(self, values_E: Tensor, count: int) -> Tensor:
        """Which own values are among the `count` largest of all members' together; to each its
        own."""
        ...

    def combined(
        self, gradients: Mapping[str, Tensor], per_feature: Collection[str]
    ) -> dict[str, Tensor]:
        """Gradients of the loss of the whole, from those that each has; of tensors that are
        `per_feature`, with respect to its own features."""
        ...

    def norm(self, gradients: Mapping[str, Tensor], per_feature: Collection[str]) -> Tensor:
        """Of all of what `combined` gave together, 0-d."""
        ...

    # --- what goes from one to all, and back

    def hand_out(self, tensor: Tensor | None, own: Tensor, per_feature: bool) -> None:
        """Fill `own` with what the leader's tensor, which it alone has to give, says of it: all of
        it or, `per_feature`, own features' rows."""
        ...

    def blocks(self, own: Tensor, n: int, features: int | None) -> Iterator[Tensor]:
        """A tensor of all n features in consecutive blocks along its first dimension, for the
        leader; what the others get is not. features: which dimension counts them; None: none."""
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


class Alone(WholeBatch, WholeDictionary):
    """A process that trains by itself."""

    size = 1
    rank = 0
    is_leader = True

    def count(self, own: int) -> int:
        """Its own."""
        return own

    def smallest(self, values: Tensor) -> Tensor:
        """Of its own."""
        return values.min()

    def largest(self, values_E: Tensor, count: int) -> Tensor:
        """Of its own."""
        return torch.topk(values_E, count, sorted=False).indices

    def combined(
        self,
        gradients: Mapping[str, Tensor],
        per_feature: Collection[str],  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Its own."""
        return dict(gradients)

    def hand_out(self, tensor: Tensor | None, own: Tensor, per_feature: bool) -> None:  # noqa: ARG002
        """From itself to itself."""
        assert tensor is not None, "the leader has it"
        own.copy_(tensor)

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
