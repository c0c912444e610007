"""Processes that share the dictionary: every one holds all rows of each batch and some features,
with all that belongs to them.

Of R processes, feature i is with process i modulo R: so an enabled prefix of the dictionary is one
prefix in each of them, and their work is even however many are enabled.

Every process works out the same loss. It takes gradients as if what the others add to a sum were
constant; where that is not all, as in the softmax, the backward pass asks the others too.

Names: B rows, M enabled features of all, m of one process.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cpsae.sae.group_parts import BLOCK, WholeBatch
from cpsae.sae.precision import widen
from cpsae.training.exchange import Processes, refuse_shape


class SharedDictionary(Processes, WholeBatch):
    """A `Group`, whose methods do as it says."""

    splits = True

    def features(self, m: int) -> int:
        """As `Group`."""
        return max(0, -(-(m - self.rank) // self.size))

    def whole(self, own: int) -> int:
        """As `Group`."""
        return self.count(own)

    def numbers(self, own: Tensor) -> Tensor:
        """As `Group`."""
        return own * self.size + self.rank

    def all_features(self, own: Tensor) -> Tensor:
        """As `Group`."""
        lengths = self.lengths(len(own))
        if not any(lengths):
            return own
        return self.joined(self.numbers(own), lengths).sort().values

    def held_of(self, features_K: Tensor) -> tuple[Any, Tensor]:
        """As `Group`."""
        held = (features_K % self.size == self.rank).nonzero().squeeze(1)
        return held, features_K[held] // self.size

    def part(self, tensor: Tensor) -> Tensor:
        """As `Group`."""
        return tensor[self.rank :: self.size].clone()

    def once(self, tensor: Tensor) -> Tensor:
        """As `Group`."""
        return tensor / self.size

    def sum_of_features(self, own: Tensor) -> Tensor:
        """As `Group`, in float32 at least."""
        made: Tensor = _Sum.apply(widen(own), self)  # type: ignore[no-untyped-call]
        return made

    def mean_of_features(self, own: Tensor) -> Tensor:
        """As `Group`."""
        return self.reduced(own.sum(dim=0)) / self.whole(len(own))

    def softmax(self, scores_Bm: Tensor, out: Tensor | None = None) -> Tensor:
        """As `Group`; into `out` without a history."""
        if out is not None:
            return self.softmax_into(scores_Bm, out)
        made: Tensor = _Softmax.apply(scores_Bm, self)  # type: ignore[no-untyped-call]
        return made

    def softmax_into(self, scores_Bm: Tensor, out: Tensor) -> Tensor:
        """The values alone; `out` may be the scores."""
        largest_B1 = self.reduced(scores_Bm.amax(dim=-1, keepdim=True), dist.ReduceOp.MAX)
        torch.sub(scores_Bm, largest_B1, out=out).exp_()
        return out.div_(self.reduced(out.sum(dim=-1, keepdim=True)))

    def largest_in_rows(self, values_Bm: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """As `Group`: no more than k values a row go out from each."""
        own = torch.topk(values_Bm, min(k, values_Bm.shape[1]), dim=1, sorted=False)
        batch, held = own.values.shape
        lengths = self.lengths(held)
        if sum(lengths) <= k:
            return own.values, own.indices
        most = max(lengths)
        sent = own.values.new_full((batch, most), -torch.inf)
        sent[:, :held] = own.values.detach()
        of_all = torch.cat(self.each(sent), dim=1)
        among = torch.zeros_like(of_all, dtype=torch.bool)
        among.scatter_(1, torch.topk(of_all, k, dim=1, sorted=False).indices, True)
        first = self.rank * most
        return own.values.masked_fill(~among[:, first : first + held], 0), own.indices

    def combined(
        self, gradients: Mapping[str, Tensor], per_feature: Collection[str]
    ) -> dict[str, Tensor]:
        """As `Group`: each has its own features', and a part of the others."""
        parts = {name: g for name, g in gradients.items() if name not in per_feature}
        return {**gradients, **self.summed(parts)}

    def norm(self, gradients: Mapping[str, Tensor], per_feature: Collection[str]) -> Tensor:
        """As `Group`."""
        own = [g for name, g in gradients.items() if name in per_feature]
        others = [g for name, g in gradients.items() if name not in per_feature]
        square = self.reduced(torch.nn.utils.get_total_norm(own).square())
        if others:
            square = square + torch.nn.utils.get_total_norm(others).square()
        return square.sqrt()

    def hand_out(self, tensor: Tensor | None, own: Tensor, per_feature: bool) -> None:
        """As `Group`, a block of the dictionary at a time."""
        if not per_feature:
            self.hand_out_whole(tensor, own)
            return
        n, of_each = self.whole(len(own)), own.shape[1:]
        if tensor is not None:
            refuse_shape(tensor, (n, *of_each))
        held = max(1, BLOCK // (of_each.numel() * self.size))
        for first in range(0, n, held * self.size):
            last = min(n, first + held * self.size)
            block = own.new_empty((last - first, *of_each))
            if tensor is not None:
                block.copy_(tensor[first:last])
            mine = self.of_leader(block)[self.rank :: self.size]
            own[first // self.size :][: len(mine)] = mine

    def blocks(self, own: Tensor, n: int, features: int | None) -> Iterator[Tensor]:
        """As `Group`; all get them."""
        if features is None:
            yield own
            return
        held = -(-n // self.size)
        if features == 1:
            for some in torch.split(own, max(1, BLOCK // n)):
                yield self._alternating(some, held, 1)[:, :n]
            return
        rows = max(1, BLOCK // (own.shape[1:].numel() * self.size))
        for first in range(0, held, rows):
            some = own[first : first + rows]
            whole = self._alternating(some, min(held - first, rows), 0)
            yield whole[: n - first * self.size]

    def _alternating(self, own: Tensor, held: int, features: int) -> Tensor:
        """The members' features in turns, of up to `held` each."""
        shape = list(own.shape)
        shape[features] = held
        sent = own.new_zeros(shape)
        sent.narrow(features, 0, own.shape[features]).copy_(own)
        return torch.stack(self.each(sent), dim=features + 1).flatten(features, features + 1)


class _Sum(torch.autograd.Function):
    """The sum over the processes, with the gradient of what each adds."""

    @staticmethod
    def forward(_ctx: Any, own: Tensor, group: SharedDictionary) -> Tensor:
        return group.reduced(own)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Softmax(torch.autograd.Function):
    """Of rows whose parts the processes hold."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, group: SharedDictionary) -> Tensor:
        made = group.softmax_into(scores, torch.empty_like(scores))
        ctx.save_for_backward(made)
        ctx.group = group
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (made,), (gradient,) = ctx.saved_tensors, gradients
        along = ctx.group.reduced((made * gradient).sum(dim=-1, keepdim=True))
        return made * (gradient - along), None
