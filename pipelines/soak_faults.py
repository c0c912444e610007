"""The sorts of faults that `soak.py` tries, each as something that happens to a command while it
runs, or to the files between two commands."""

import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from soak_processes import (
    REFUSALS,
    Prepare,
    at_operation,
    clock_off_by,
    no_larger_file,
    refused,
    sent,
    slow,
)

_STORE_OPERATIONS, _RUN_OPERATIONS = 430, 79
"""Roughly how many operations on the disk an extraction and a fit make."""
Interruption = Callable[[random.Random, int], Prepare]
"""From the number of operations to what makes a command end early, or makes it hard for it."""
Damage = Callable[[random.Random, Path], str]
"""Damages what is below a folder; the path, from there, of what it damaged."""


def operations(stage: str) -> int:
    """Of a whole run of a stage."""
    return _STORE_OPERATIONS if stage == "extract" else _RUN_OPERATIONS


def _signal(*numbers: int) -> Interruption:
    return lambda rng, count: at_operation(rng.randint(1, count), sent(*numbers))


def _refusal(name: str) -> Interruption:
    code, lasting = REFUSALS[name]
    return lambda rng, count: at_operation(rng.randint(1, count), refused(code), lasting)


def _both(*prepares: Prepare) -> Prepare:
    def prepare() -> None:
        for one in prepares:
            one()

    return prepare


def _slow_and_killed(rng: random.Random, count: int) -> Prepare:
    killed = at_operation(rng.randint(1, count), sent(signal.SIGKILL))
    return _both(at_operation(1, slow, every=True), killed)


def _clock_and_killed(rng: random.Random, count: int) -> Prepare:
    seconds = rng.choice([-1, 1]) * rng.uniform(1e3, 1e9)
    return _both(clock_off_by(seconds), at_operation(rng.randint(1, count), sent(signal.SIGTERM)))


INTERRUPTIONS: dict[str, Interruption] = {
    "SIGKILL": _signal(signal.SIGKILL),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGINT": _signal(signal.SIGINT),
    "SIGINT twice": _signal(signal.SIGINT, signal.SIGINT),
    "SIGHUP": _signal(signal.SIGHUP),
    **{name: _refusal(name) for name in REFUSALS},
    "file too large": lambda rng, _: no_larger_file(rng.randint(200, 9000)),
    "slow disk, SIGKILL": _slow_and_killed,
    "clock jumps, SIGTERM": _clock_and_killed,
}


def _some(rng: random.Random, folder: Path, patterns: Sequence[str]) -> Path:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return rng.choice([path for path in found if path.is_file()])


def _flip(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _truncate(rng: random.Random, file: Path) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def _zero(rng: random.Random, file: Path) -> None:
    size = file.stat().st_size
    first = rng.randrange(size)
    content = file.read_bytes()
    file.write_bytes(content[:first] + bytes(min(512, size - first)) + content[first + 512 :])


def _unreadable(_: random.Random, file: Path) -> None:
    """Opening it succeeds, reading it is an input/output error: nothing is mapped there."""
    file.unlink()
    file.symlink_to("/proc/self/mem")


def _remove(_: random.Random, file: Path) -> None:
    file.unlink()


def _done_to(how: Callable[[random.Random, Path], None], *patterns: str) -> Damage:
    def damage(rng: random.Random, folder: Path) -> str:
        file = _some(rng, folder, patterns)
        how(rng, file)
        return os.fspath(file.relative_to(folder))

    return damage


def _leftovers(rng: random.Random, folder: Path) -> str:
    inside = _some(rng, folder, ["**/zarr.json", "**/config.json", "**/state.json"]).parent
    (inside / ".0.99999-0123abcd.tmp").write_bytes(b"half of a fi")
    (folder / ".lock").write_text("99999\n")  # of a process that is no more
    return ".lock and a temporary file"


def _other_times(rng: random.Random, folder: Path) -> str:
    for path in folder.rglob("*"):
        moment = rng.choice([0, 4e9]) + rng.random()
        os.utime(path, (moment, moment))
    return "all times of files"


_ROWS = ("**/activations/c/*/0",)
_STATISTICS = ("**/statistics/*/c/**/*",)
_TOKENS = ("**/tokens/c/*/0",)
_DOCUMENTS = ("*/zarr.json", "*/*/zarr.json")
STORE_DAMAGES: dict[str, Damage] = {
    "bit flipped in rows": _done_to(_flip, *_ROWS),
    "bit flipped in statistics": _done_to(_flip, *_STATISTICS),
    "bit flipped in tokens": _done_to(_flip, *_TOKENS),
    "rows truncated": _done_to(_truncate, *_ROWS),
    "statistics truncated": _done_to(_truncate, *_STATISTICS),
    "rows overwritten by zeros": _done_to(_zero, *_ROWS),
    "rows deleted": _done_to(_remove, *_ROWS),
    "statistics deleted": _done_to(_remove, *_STATISTICS),
    "tokens deleted": _done_to(_remove, *_TOKENS),
    "rows unreadable": _done_to(_unreadable, *_ROWS),
    "document truncated": _done_to(_truncate, *_DOCUMENTS),
    "document deleted": _done_to(_remove, *_DOCUMENTS),
    "manifest truncated": _done_to(_truncate, "zarr.json"),
    "leftovers and a stale lock": _leftovers,
    "other times of files": _other_times,
}
_CHECKPOINT = ("checkpoints/step-*/*",)
RUN_DAMAGES: dict[str, Damage] = {
    "checkpoint truncated": _done_to(_truncate, *_CHECKPOINT),
    "bit flipped in a checkpoint": _done_to(_flip, *_CHECKPOINT),
    "file of a checkpoint deleted": _done_to(_remove, *_CHECKPOINT),
    "checkpoint unreadable": _done_to(_unreadable, *_CHECKPOINT),
    "configuration truncated": _done_to(_truncate, "config.json"),
    "log truncated": _done_to(_truncate, "metrics.jsonl"),
    "bit flipped in the first weights": _done_to(_flip, "start.safetensors"),
    "leftovers and a stale lock": _leftovers,
    "other times of files": _other_times,
}
