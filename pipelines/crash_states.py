"""What a folder may look like after a power cut, or after a kill."""

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from crash_recorder import ROOT, Cut

_TEMPORARY = re.compile(r"\.(.+)\.\d+-[0-9a-f]{8}\.tmp")
State = dict[str, bytes | None]
"""What is below a folder: a path's bytes, None for a folder."""


class Change(NamedTuple):
    """A name that is not as it was when its folder was synced last."""

    folder: int
    name: str
    before: int | None
    after: int | None


def changes(cut: Cut) -> list[Change]:
    """All of a cut."""
    found = []
    for folder, names in sorted(cut.names.items()):
        durable = cut.durable_names.get(folder, {})
        for name in sorted({*names, *durable}):
            before, after = durable.get(name), names.get(name)
            if before != after:
                found.append(Change(folder, name, before, after))
    return found


def states(cut: Cut, rng: random.Random, more: int = 2) -> Iterator[tuple[str, State]]:
    """The kill, which loses nothing; the power cut that loses all that was not synced; and those
    between: all names with torn bytes, one name alone, all names but one, and some by chance."""
    pending = changes(cut)
    everything = set(pending)
    yield "killed", _state(cut, everything, _whole)
    yield "all lost", _state(cut, set(), _nothing)
    torn = {"empty": _nothing, "half": _half, "zeros": _zeros}
    for name, bytes_of in torn.items():
        yield f"names kept, bytes {name}", _state(cut, everything, bytes_of)
    for change in pending:
        yield f"{change.name} alone", _state(cut, {change}, _nothing)
        yield f"all but {change.name}", _state(cut, everything - {change}, _whole)
    for _ in range(more if len(pending) > 2 else 0):
        some = {change for change in pending if rng.random() < 0.5}
        yield "some by chance", _state(cut, some, rng.choice([_half, _zeros, _whole]))


_Bytes = Callable[[bytes | None, bytes], bytes]
"""From the bytes that were synced, if any, and those that are seen, to those that are left."""


def _whole(_synced: bytes | None, seen: bytes) -> bytes:
    return seen


def _nothing(synced: bytes | None, _seen: bytes) -> bytes:
    return synced or b""


def _half(synced: bytes | None, seen: bytes) -> bytes:
    start = len(synced) if synced and seen.startswith(synced) else 0
    return seen[: start + (len(seen) - start) // 2]


def _zeros(synced: bytes | None, seen: bytes) -> bytes:
    start = synced if synced and seen.startswith(synced) else b""
    return start + bytes(len(seen) - len(start))


def _state(cut: Cut, kept: set[Change], bytes_of: _Bytes) -> State:
    """What is left: the durable names with the kept changes, and of bytes what `bytes_of` says."""
    found: State = {}
    changed = {(change.folder, change.name): change.after for change in kept}

    def walk(folder: int, path: str) -> None:
        names = dict(cut.durable_names.get(folder, {}))
        for (where, name), after in changed.items():
            if where == folder:
                names.pop(name, None)
                names |= {} if after is None else {name: after}
        for name, number in names.items():
            inner = f"{path}{name}"
            if number in cut.names or number in cut.durable_names:
                found[inner] = None
                walk(number, f"{inner}/")
                continue
            synced = cut.durable_contents.get(number)
            seen = cut.contents.get(number, synced or b"")
            found[inner] = seen if seen == synced else bytes_of(synced, seen)

    walk(ROOT, "")
    return found


def key_of(state: State) -> int:
    """Equal for states that differ in names of locks and bytes of temporary files alone, which no
    program looks at."""
    plain = {}
    for path, content in state.items():
        parts = path.split("/")
        temporary = [number for number, part in enumerate(parts) if part.endswith(".tmp")]
        if parts[-1] == ".lock":
            continue
        if temporary:
            parts = parts[: temporary[0] + 1]
            parts[-1] = _TEMPORARY.sub(r".\1.tmp", parts[-1])
            content = b""
        plain["/".join(parts)] = content
    return hash(frozenset(plain.items()))


def write_state(state: State, folder: Path) -> None:
    """Make `folder`, which is empty, look so."""
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def read_state(folder: Path) -> State:
    """What a folder looks like."""
    return {
        os.fspath(path.relative_to(folder)): None if path.is_dir() else _bytes_of(path)
        for path in sorted(folder.rglob("*"))
    }


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        return f"unreadable: {error.strerror}".encode()
