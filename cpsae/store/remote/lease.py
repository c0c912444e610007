"""The lock of a store in a bucket: an object that its holder renews, and that anybody may take who
has seen it unrenewed for its whole term.

Every change is conditional on what was there before, so that of two who try one succeeds. Time is
measured by each process on its own clock, as time since it saw a change: clocks need not agree.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore

from cpsae.errors import BusyError, RemoteError
from cpsae.events import Note, OnEvent, ignore
from cpsae.store.remote.answers import CONFLICTS, explained
from cpsae.store.remote.connection import ObjectStore

_RENEWALS = 5
"""A term."""
_HELD_SHARE = 0.75
"""Of a term: whoever could not renew for so long stops, before anybody may take over."""


class Lease:
    """The object `key` as the lock of what is called `name`, of `term` seconds."""

    def __init__(self, store: ObjectStore, key: str, name: str, term: float) -> None:
        self._store, self._key, self._name, self.term = store, key, name, term
        self._id = secrets.token_hex(8)
        self._since = datetime.now(UTC)
        self._count = 0
        self._version: dict[str, str] = {}
        self._renewed: float | None = None
        self._lost: str | None = None
        self._wake = threading.Event()

    @contextmanager
    def held(self, what: str, on_event: OnEvent = ignore) -> Iterator[None]:
        """Hold it until the block ends. Raises BusyError where somebody renews it; what ("store")
        is for the text."""
        self._take(what, on_event)
        self._wake.clear()
        thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._wake.set()
            thread.join()
            self._free()

    def check(self) -> None:
        """Raises BusyError where it is held no longer: whoever writes then may not be alone."""
        began = self._renewed
        if began is None:
            return
        if self._lost is None and _clock() - began > _HELD_SHARE * self.term:
            self._lost = f"could not be renewed for {_HELD_SHARE * self.term:.0f} s"
        if self._lost is not None:
            raise BusyError(
                f"{self._name}: the lock of this writer {self._lost}, so it stops; what is "
                "written stays: run the same command again"
            )

    def seen(self) -> bool:
        """Whether somebody holds it, as far as this machine's clock and the server's agree."""
        found = self._read()
        return found is not None and not found[0].get("free") and _is_recent(found[1], self.term)

    def _take(self, what: str, on_event: OnEvent) -> None:
        self._since, self._lost = datetime.now(UTC), None
        while True:
            found = self._read()
            if found is None:
                if self._put("create"):
                    return
                continue
            content, meta = found
            gone = content.get("free") or _is_dead(content)
            if not gone:
                if _is_alive(content) and _is_recent(meta, self.term):
                    raise self._busy(content, meta, what)
                if not self._waited_out(content, meta, what, on_event):
                    continue
            if self._put(_version(meta)):
                return

    def _waited_out(self, content: dict[str, Any], meta: Any, what: str, on_event: OnEvent) -> bool:
        """Whether nobody renewed it for its term. Raises BusyError where its holder does; False
        where it was given back or removed."""
        term = _term(content, self.term)
        began, told = _clock(), False
        while _clock() - began < term:
            time.sleep(term / _RENEWALS / 4)
            found = self._read()
            if found is None or found[0].get("free"):
                return False
            if _version(found[1]) != _version(meta):
                raise self._busy(*found, what)
            if not told and _clock() - began > term / _RENEWALS:
                told = True
                text = (
                    f"{self._name}: {_holder(content)} held this {what} and is not heard of; it is "
                    f"taken over after {term:g} s"
                )
                on_event(Note(text, "warning"))
        return True

    def _busy(self, content: dict[str, Any], meta: Any, what: str) -> BusyError:
        until = meta["last_modified"] + timedelta(seconds=_term(content, self.term))
        return BusyError(
            f"{self._name}: another process ({_holder(content)}) is writing this {what}, and holds "
            f"it until {until.astimezone(UTC):%H:%M:%S} UTC unless it renews that; wait until it "
            "ends or stop it, then run the same command again"
        )

    def _keep(self) -> None:
        while not self._wake.wait(self.term / _RENEWALS) and self._lost is None:
            with suppress(RemoteError):  # tried again, until `check` has had enough
                if not self._put(self._version):
                    self._lost = "was taken by another process"

    def _free(self) -> None:
        """Say that it is free. It stays there: nothing removes an object on a condition."""
        if self._lost is None:
            with suppress(RemoteError):
                self._put(self._version, free=True)
        self._renewed = None

    def _put(self, mode: Any, free: bool = False) -> bool:
        """Whether it is as we wish now: after an answer that was lost, a second try meets our own
        first one."""
        began = _clock()
        self._count += 1
        content = json.dumps(self._content(free)).encode()
        try:
            with explained(self._name, self._key):
                result = obstore.put(
                    self._store, self._key, content, mode=mode, use_multipart=False
                )
            self._version = _version(result)
        except (*CONFLICTS, RemoteError) as error:
            found = self._read()
            if found is None or (found[0].get("id"), found[0].get("count")) != (
                self._id,
                self._count,
            ):
                if isinstance(error, RemoteError):
                    raise
                return False
            self._version = _version(found[1])
        self._renewed = began
        return True

    def _content(self, free: bool) -> dict[str, Any]:
        return {
            "id": self._id,
            "count": self._count,
            "free": free,
            "host": platform.node(),
            "pid": os.getpid(),
            "processes": _processes(),
            "since": self._since.isoformat(timespec="seconds"),
            "term": self.term,
        }

    def _read(self) -> tuple[dict[str, Any], Any] | None:
        try:
            with explained(self._name, self._key):
                found = obstore.get(self._store, self._key)
                meta, raw = found.meta, bytes(found.bytes())
        except FileNotFoundError:
            return None
        try:
            content = json.loads(raw)
        except ValueError:
            content = {}
        return (content if isinstance(content, dict) else {}), meta


@contextmanager
def shown(store: ObjectStore, key: str, term: float) -> Iterator[None]:
    """Renew the object `key` until the block ends, then remove it: it shows that somebody is
    there."""
    done = threading.Event()

    def renew() -> None:
        while True:
            with suppress(Exception):  # what is not seen is waited for a little longer, no more
                obstore.put(store, key, secrets.token_bytes(8), use_multipart=False)
            if done.wait(term / _RENEWALS):
                return

    thread = threading.Thread(target=renew, name="fellow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(Exception):
            obstore.delete(store, key)


def is_shown(meta: Any, term: float) -> bool:
    """Whether who made an object with `shown` may still be there."""
    return _is_recent(meta, term)


def _is_recent(meta: Any, term: float) -> bool:
    """By the server's clock and ours, which may differ by some terms before it matters."""
    age: float = (datetime.now(UTC) - meta["last_modified"]).total_seconds()
    return age < 3 * term + 1


def _term(content: dict[str, Any], default: float) -> float:
    """As its holder has it."""
    term = content.get("term")
    return float(term) if isinstance(term, int | float) and 0 < term < 1e6 else default


def _version(meta: Any) -> dict[str, str]:
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def _holder(content: dict[str, Any]) -> str:
    host, pid, since = (content.get(key, "?") for key in ("host", "pid", "since"))
    return f"pid {pid} on {host}, since {since}"


def _clock() -> float:
    """Seconds, those in which the machine slept included, where the system counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boot) if boot is not None else time.monotonic()


def _processes() -> str | None:
    """What process numbers are numbers of: this start of this machine, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  a link to follow
    except OSError:
        return None


def _is_near(content: dict[str, Any]) -> bool:
    known = _processes()
    return known is not None and content.get("processes") == known


def _is_alive(content: dict[str, Any]) -> bool:
    """Whether its holder is a process of this machine, and is there."""
    return _is_near(content) and _exists(content.get("pid"))


def _is_dead(content: dict[str, Any]) -> bool:
    """Whether its holder was a process of this machine, and is gone."""
    return _is_near(content) and not _exists(content.get("pid"))


def _exists(pid: object) -> bool:
    if not isinstance(pid, int) or pid < 1:
        return True  # nothing can be said
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
