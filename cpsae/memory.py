"""Main memory that this process may still take: the machine's, and what limits leave of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_NONE = 2**60
"""Bytes from which on a limit is none: cgroup v1 writes 2^63 less a page, by its page size."""


class Room(NamedTuple):
    """Bytes that are free, and what bounds them, in words; "" for the machine or GPU itself."""

    bytes: int
    limit: str = ""


def main_memory(
    proc: Path = Path("/proc"),
    cgroups: Path = Path("/sys/fs/cgroup"),
    limits: Mapping[str, int] | None = None,
) -> Room | None:
    """The least of what the machine has available and what each limit leaves; None where the
    system says nothing of it. limits: bytes of RLIMIT_AS and RLIMIT_DATA, by default this
    process's own."""
    rooms = [*_machine(proc), *_cgroups(proc, cgroups)]
    rooms += _process(proc, process_limits() if limits is None else limits)
    return min(rooms, default=None)


def process_limits() -> dict[str, int]:
    """Bytes of this process's soft limits RLIMIT_AS and RLIMIT_DATA, of those that are set."""
    try:
        import resource
    except ImportError:  # not POSIX
        return {}
    numbers = {"RLIMIT_AS": resource.RLIMIT_AS, "RLIMIT_DATA": resource.RLIMIT_DATA}
    soft = {name: resource.getrlimit(number)[0] for name, number in numbers.items()}
    return {name: limit for name, limit in soft.items() if limit != resource.RLIM_INFINITY}


def _machine(proc: Path) -> Iterator[Room]:
    available = _fields(proc / "meminfo").get("MemAvailable")
    if available is not None:
        yield Room(available * 1024)


def _process(proc: Path, limits: Mapping[str, int]) -> Iterator[Room]:
    status = _fields(proc / "self" / "status")
    for name, used in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        if name in limits:
            left = limits[name] - status.get(used, 0) * 1024
            flag = {"RLIMIT_AS": "-v", "RLIMIT_DATA": "-d"}[name]
            yield Room(max(left, 0), f"{name} of this process (ulimit {flag})")


def _cgroups(proc: Path, root: Path) -> Iterator[Room]:
    """Of the process's own control groups and all above them, as far as they can be seen."""
    for line in _lines(proc / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder, name in _upwards(root, path):
                yield from _of_version_2(folder, name)
        elif "memory" in controllers.split(","):
            for folder, name in _upwards(root / "memory", path):
                yield from _of_version_1(folder, name)


def _upwards(mount: Path, path: str) -> Iterator[tuple[Path, PurePosixPath]]:
    """The folder of a group and of each above it, with its name. In a container the name may be
    the host's: folders that are not there are passed over, and the mount is the container's."""
    name = PurePosixPath("/", *(part for part in path.split("/") if part != ".."))
    for group in (name, *name.parents):
        yield mount / group.relative_to("/"), group


def _of_version_2(folder: Path, name: PurePosixPath) -> Iterator[Room]:
    for file in ("memory.max", "memory.high"):
        yield from _left(folder, name, file, "memory.current", ("inactive_file",))


def _of_version_1(folder: Path, name: PurePosixPath) -> Iterator[Room]:
    given_back = ("total_inactive_file", "inactive_file")
    yield from _left(folder, name, "memory.limit_in_bytes", "memory.usage_in_bytes", given_back)


def _left(
    folder: Path, name: PurePosixPath, file: str, usage: str, given_back: tuple[str, ...]
) -> Iterator[Room]:
    limit = _number(folder / file)
    if limit is None or limit >= _NONE:
        return
    statistics = _fields(folder / "memory.stat")
    cache = next((statistics[key] for key in given_back if key in statistics), 0)
    used = max((_number(folder / usage) or 0) - cache, 0)
    yield Room(max(limit - used, 0), f"{file} of the control group {name}")


def _number(file: Path) -> int | None:
    """The one number in a file; None where it is absent or says `max`."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else None


def _fields(file: Path) -> dict[str, int]:
    """Lines like `name: 12 kB` or `name 12` of a file."""
    pieces = [line.replace(":", " ").split() for line in _lines(file)]
    return {line[0]: int(line[1]) for line in pieces if len(line) > 1 and line[1].isdecimal()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def gigabytes(count: int) -> str:
    """A number of bytes as people read it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
