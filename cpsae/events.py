"""What a stage tells whoever runs it: the command line draws bars of it, others may ignore it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Started:
    """A piece of long work begins; `done` of its `total` units were done before.

    `kept`: what is done stays done when the work is interrupted.
    """

    work: str
    total: int
    unit: str
    done: int = 0
    kept: bool = True


@dataclass(frozen=True)
class Advanced:
    """The piece of work last started has got to `done`; `values` are figures worth showing."""

    done: int
    values: Mapping[str, float | int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """The piece of work last started has ended."""


@dataclass(frozen=True)
class Note:
    """Something worth a line: a plain fact, a `detail` for -v, or a `warning`."""

    text: str
    kind: str = "fact"


Event = Started | Advanced | Finished | Note
OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The listener of whoever wants to hear nothing."""
