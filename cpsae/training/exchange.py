"""How processes that train one autoencoder reach each other: torch.distributed, gloo between CPUs
and NCCL between GPUs.

Only tensors and JSON go from one to another, never pickles. Each wait has an end: a process that is
gone closes its connections, which ends the others' waiting at once, and one that hangs is given up
after a time.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cpsae.device import is_out_of_memory
from cpsae.errors import GroupError, first_line
from cpsae.sae.precision import widen
from cpsae.workers import Worker

JOIN_SECONDS = 120.0
"""Within which all processes must have started."""
ANSWER_SECONDS = 300.0
"""Within which all must answer while they train: a file system may stall for a while."""
PATIENCE_SECONDS = 3600.0
"""For which the others wait while the leader writes or evaluates."""
_groups = count()
_AGAIN = "run the same command again to go on from the last checkpoint"


class Processes:
    """Several processes, to which this one has been joined: what groups of them have in common, for
    those methods as `Group` says."""

    def __init__(self, worker: Worker, device: torch.device) -> None:
        """Raises GroupError where the others do not come."""
        self.size, self.rank = worker.count, worker.rank
        self.device = device
        # Host and GPU then wait together, so that a process that is gone is an error here, not the
        # end of this one by a watchdog.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        backend = "nccl" if device.type == "cuda" else "gloo"
        with self._answers(JOIN_SECONDS, "did not come"):
            dist.init_process_group(
                "gloo",
                store=_place_of_next(worker),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=JOIN_SECONDS),
            )
            self._patient = dist.new_group(
                backend="gloo", timeout=timedelta(seconds=PATIENCE_SECONDS)
            )
            prompt = timedelta(seconds=ANSWER_SECONDS)
            self._prompt = dist.new_group(backend=backend, timeout=prompt)
            self._on_hosts = self._prompt
            if backend != "gloo":
                self._on_hosts = dist.new_group(backend="gloo", timeout=prompt)
            dist.all_reduce(torch.zeros(1, device=device), group=self._prompt)

    @property
    def is_leader(self) -> bool:
        """The first of them."""
        return self.rank == 0

    def close(self) -> None:
        """Leave the others."""
        with suppress(RuntimeError):
            dist.destroy_process_group()

    def count(self, own: int) -> int:
        """As `Group`."""
        return sum(self.lengths(own))

    def smallest(self, values: Tensor) -> Tensor:
        """As `Group`."""
        values = widen(values.detach())
        own = values.min() if values.numel() else values.new_full((), torch.inf)
        return self.reduced(own, dist.ReduceOp.MIN)

    def largest(self, values_E: Tensor, count: int) -> Tensor:
        """As `Group`: no more than `count` values go out from each."""
        own = torch.topk(values_E.detach(), min(count, len(values_E)), sorted=False)
        lengths = self.lengths(len(own.values))
        of_all = self.joined(own.values, lengths)
        before = sum(lengths[: self.rank])
        chosen = torch.topk(of_all, count, sorted=False).indices - before
        return own.indices[chosen[(chosen >= 0) & (chosen < lengths[self.rank])]]

    def of_leader(self, tensor: Tensor) -> Tensor:
        """As `Group`."""
        sent = tensor.detach().to(self.device).contiguous().clone()
        with self._answers(ANSWER_SECONDS):
            dist.broadcast(sent, src=0, group=self._prompt)
        return sent.to(tensor.device)

    def hand_out_whole(self, tensor: Tensor | None, own: Tensor) -> None:
        """Fill `own`, which is as large as it everywhere, with the leader's tensor."""
        sent = own if tensor is None else tensor.to(own.dtype)
        refuse_shape(sent, own.shape)
        own.copy_(self.of_leader(sent))

    def told(self, content: Any) -> Any:
        """As `Group`."""
        text = json.dumps(content).encode() if self.is_leader else b""
        size = torch.tensor([len(text)])
        with self._answers(PATIENCE_SECONDS):
            dist.broadcast(size, src=0, group=self._patient)
            sent = torch.zeros(int(size), dtype=torch.uint8)
            if self.is_leader:
                sent.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
            dist.broadcast(sent, src=0, group=self._patient)
        return content if self.is_leader else json.loads(sent.numpy().tobytes())

    def any(self, own: bool) -> bool:
        """As `Group`."""
        return any(self.lengths(int(own)))

    def wait(self) -> None:
        """As `Group`."""
        with self._answers(PATIENCE_SECONDS):
            dist.all_reduce(torch.zeros(1), group=self._patient)

    # --- what groups are made of

    def reduced(self, tensor: Tensor, how: Any = dist.ReduceOp.SUM) -> Tensor:
        """The members' tensors, value by value, put together."""
        made = tensor.detach().clone(memory_format=torch.contiguous_format)
        with self._answers(ANSWER_SECONDS):
            dist.all_reduce(made, how, group=self._prompt)
        return made

    def summed(self, tensors: Mapping[str, Tensor], weight: float = 1.0) -> dict[str, Tensor]:
        """Sums over the members, each times its weight, all tensors of one dtype at once."""
        made: dict[str, Tensor] = {}
        for dtype in {tensor.dtype: None for tensor in tensors.values()}:
            some = {name: t for name, t in tensors.items() if t.dtype == dtype}
            flat = torch.cat([t.detach().reshape(-1) for t in some.values()]).mul_(weight)
            with self._answers(ANSWER_SECONDS):
                dist.all_reduce(flat, group=self._prompt)
            pieces = torch.split(flat, [t.numel() for t in some.values()])
            made |= {
                name: piece.view(t.shape)
                for (name, t), piece in zip(some.items(), pieces, strict=True)
            }
        return {name: made[name] for name in tensors}

    def lengths(self, own: int) -> list[int]:
        """A number of each member. On the host, so that no GPU is waited for."""
        found = torch.zeros(self.size, dtype=torch.int64)
        found[self.rank] = own
        with self._answers(ANSWER_SECONDS):
            dist.all_reduce(found, group=self._on_hosts)
        return [int(length) for length in found]

    def joined(self, rows: Tensor, lengths: list[int]) -> Tensor:
        """The members' rows one after another; all send as many as the longest has."""
        sent = rows.new_zeros((max(lengths), *rows.shape[1:]))
        sent[: len(rows)] = rows
        found = self.each(sent)
        return torch.cat([one[:length] for one, length in zip(found, lengths, strict=True)])

    def each(self, tensor: Tensor) -> list[Tensor]:
        """Every member's tensor, all of one shape."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._answers(ANSWER_SECONDS):
            dist.all_gather(found, tensor, group=self._prompt)
        return found

    @contextmanager
    def _answers(self, seconds: float, what: str = "is gone or does not answer") -> Iterator[None]:
        """torch says that a process is gone, or a time is over, by a RuntimeError."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = re.sub(r"^\[[^\]]*\]\s*", "", first_line(error, 160))
            raise GroupError(
                f"process {self.rank} of {self.size}: another one {what} (waited for it up to "
                f"{seconds:.0f} s; {reason}); look for what it said, then {_AGAIN}"
            ) from error


def refuse_shape(tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raises ValueError where a tensor has another shape."""
    if tuple(tensor.shape) != tuple(expected):
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)}, expected {tuple(expected)}")


def _place_of_next(worker: Worker) -> Any:
    """Where the members of the next group find each other. Of a second group in the same processes
    it must not be that of the first, whose members' addresses are still there."""
    from torch.distributed.distributed_c10d import PrefixStore

    return PrefixStore(f"cpsae/{next(_groups)}", _meeting_place(worker.rank, worker.count))


@cache
def _meeting_place(rank: int, size: int) -> Any:
    """As the environment says. Once a process: the first one serves it to the others."""
    from torch.distributed.rendezvous import rendezvous  # not every build of torch has it

    end = timedelta(seconds=JOIN_SECONDS)
    store, _, _ = next(rendezvous("env://", rank, size, timeout=end))
    store.set_timeout(end)
    return store
