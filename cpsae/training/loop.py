"""The loop of stage 2: one feed, and every batch of it to each of its members."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

import torch

from cpsae.errors import NonFiniteError, StoreError
from cpsae.events import Advanced, Finished, Note, OnEvent, Started, ignore
from cpsae.sae.group import ALONE, Group
from cpsae.store.growing import StoppedWaiting
from cpsae.training.feed import ActivationFeed
from cpsae.training.member import Member
from cpsae.training.step import StepResult


@dataclass(frozen=True)
class Stopped:
    """A training that was asked to stop: its last checkpoint is at `step`."""

    step: int
    steps: int


class Loop:
    """Trains members whose feed settings and number of steps are equal.

    The feed begins where the member that is furthest behind has got to; those ahead of it let its
    batches pass. Several processes run equal loops, each with its share of every batch.
    """

    def __init__(
        self,
        feed: ActivationFeed,
        members: Sequence[Member],
        on_event: OnEvent = ignore,
        group: Group = ALONE,
    ) -> None:
        self.feed = feed
        self.group = group
        self.members = list(members)
        self.on_event = on_event
        self.failed: list[tuple[Member, NonFiniteError]] = []
        """Members that were given up, where others went on."""
        behind = min(self.members, key=lambda member: member.step)
        self.steps = behind.schedule.steps
        self.log_every = behind.settings.log_every
        self._step = behind.step
        feed.position = behind.position

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Stopped | None:
        """Train to the last step; `Stopped` where it was asked to stop (asked at every multiple of
        log_every, which then gets a checkpoint), or another process of the group was.

        Raises NonFiniteError where the only member's loss or weight is no number, DiskError where
        the disk is full; the last checkpoints stay.
        """
        self.on_event(Started("fit", self.steps, "step", self._step))
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(closing(member))
            batches = stack.enter_context(closing(self.feed.stream(recycle=True)))
            for step in range(self._step + 1, self.steps + 1):
                try:
                    rows = next(batches)
                except StoppedWaiting:
                    return self._stopped_before(step)
                except StoreError:
                    if self.group.size == 1:  # others do not know of it, and would not answer
                        self._stopped_before(step)  # no update is lost with the store
                    raise
                self._update_all(step, rows)
                stopping = self._may_stop(step) and self.group.any(should_stop())
                for member in list(self.members):
                    if member.step == step and (stopping or member.wants_checkpoint()):
                        self._guarded(member, partial(member.save, self.feed.position))
                if stopping:
                    return Stopped(step, self.steps)
        self.on_event(Finished())
        return None

    def _stopped_before(self, step: int) -> Stopped:
        """Every member's checkpoint is of its last update."""
        for member in list(self.members):
            if 0 < member.step == step - 1:
                self._guarded(member, partial(member.save, self.feed.position))
        return Stopped(step - 1, self.steps)

    def _may_stop(self, step: int) -> bool:
        return step % self.log_every == 0 and step < self.steps

    def _update_all(self, step: int, rows: torch.Tensor) -> None:
        shown: list[StepResult] = []
        for member in list(self.members):
            if member.step < step:
                result = self._guarded(member, partial(member.update, rows))
                shown += [] if result is None else [result]
        if len(shown) == 1:
            [result] = shown
            figures = {"loss": result.loss, "l0": result.l0, "n": result.n_enabled}
            self.on_event(Advanced(step, figures))
        elif shown:
            losses = [result.loss for result in shown]
            figures = {"runs": len(shown), "loss from": min(losses), "to": max(losses)}
            self.on_event(Advanced(step, figures))

    def _guarded(self, member: Member, work: Callable[[], StepResult | None]) -> StepResult | None:
        """One of several members may diverge: it is given up, and the others go on."""
        try:
            return work()
        except NonFiniteError as error:
            if len(self.members) == 1:
                raise
            self.members.remove(member)
            self.failed.append((member, error))
            self.on_event(Note(str(error), "warning"))
            return None
