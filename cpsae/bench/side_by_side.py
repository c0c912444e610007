"""Timing pieces of work against each other: rounds are interleaved, so that what else the machine
does hits all alike, and what is compared are ratios within a round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cpsae.events import Advanced, Finished, OnEvent, Started


@dataclass(frozen=True)
class Line:
    """One contender's time and ratio."""

    name: str
    seconds: float
    """Median over rounds."""
    of_floor: float
    """The floor's time over this one's, median over rounds: 1 is as fast as the floor."""
    lowest: float
    highest: float
    rate: float
    """Vectors a second."""


@dataclass(frozen=True)
class Table:
    """Contenders against one floor."""

    title: str
    floor: str
    """What the ratios are to."""
    setting: Mapping[str, Any]
    lines: Sequence[Line]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What is timed, and how many vectors one call of it deals with."""

    call: Callable[[], object]
    vectors: int


Stopwatch = Callable[[Callable[[], object]], float]


def process_time(call: Callable[[], object]) -> float:
    """Seconds of CPU that a call takes, those of its threads included."""
    began = time.process_time()
    call()
    return time.process_time() - began


def gpu_time(call: Callable[[], object]) -> float:
    """Seconds until the GPU has done what a call gave it."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def stopwatch(device: torch.device) -> Stopwatch:
    """CPU time on a CPU, which a machine that others use too does not falsify as much."""
    return gpu_time if device.type == "cuda" else process_time


def measure(
    work: Mapping[str, Work], rounds: int, clock: Stopwatch, title: str, on_event: OnEvent
) -> dict[str, list[float]]:
    """Seconds of each round, after one that does not count."""
    on_event(Started(f"bench {title}", (rounds + 1) * len(work), "measurement", kept=False))
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for place, (name, one) in enumerate(work.items()):
            taken = clock(one.call)
            if number:
                seconds[name].append(taken)
            on_event(Advanced(number * len(work) + place + 1))
    on_event(Finished())
    return seconds


def lines(
    work: Mapping[str, Work], seconds: Mapping[str, Sequence[float]], floor: str
) -> list[Line]:
    """A line each, the floor's too; of work on other numbers of vectors, per vector."""
    found = []
    for name, one in work.items():
        scale = one.vectors / work[floor].vectors
        ratios = [f * scale / own for f, own in zip(seconds[floor], seconds[name], strict=True)]
        median = statistics.median(seconds[name])
        found.append(
            Line(
                name,
                median,
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                one.vectors / median,
            )
        )
    return found
