"""A bucket that is one: objects below a URL, downloaded whole and mapped from a cache.

An object is put in one request, whole or not at all. The root's document, of which there is one
for the whole store, is replaced only where it is still what was read or written here last.
"""

import errno
import json
import secrets
import threading
from collections.abc import Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from cpsae.durable import FELLOWS_NAME, LOCK_NAME
from cpsae.errors import BusyError, CpsaeError, RemoteError
from cpsae.events import OnEvent, ignore
from cpsae.store.metadata import ROOT
from cpsae.store.remote.answers import CONFLICTS
from cpsae.store.remote.cache import DiskCache, name_of
from cpsae.store.remote.lease import Lease, is_shown, shown
from cpsae.store.remote.objects import Objects, Version, WrongBytes, condition_of
from cpsae.store.remote.settings import RemoteSettings
from cpsae.urls import WEB, StoreUrl

_ASKED_ONE_BY_ONE = 8
"""Keys up to which each is asked for, rather than all that is there listed."""
_ASKED_AGAIN = 256
"""Keys that a listing lacks and that are then asked for by themselves: some servers list late."""
_BRINGING = 4
"""Threads for objects that are fetched ahead."""
_READINGS = 4
_KEPT = 4
"""Objects that a bucket without a cache keeps in memory: those of one chunk."""


class RemoteBucket:
    """The objects below `url`. cached: keep copies on this machine's disk; else each reading is one
    of the server's own bytes."""

    def __init__(self, url: StoreUrl, settings: RemoteSettings, cached: bool = True) -> None:
        self.url, self.name = url, str(url)
        self._settings = settings
        self._writable = url.scheme not in WEB
        self._objects = Objects(url, settings.patience)
        self._cache = DiskCache(settings.cache, settings.cache_bytes) if cached else None
        self._bringing = ThreadPoolExecutor(_BRINGING, thread_name_prefix="prefetch")
        self._guard = threading.Lock()
        self._ahead: dict[str, Version] = {}
        """Versions found in fetching ahead, each good for one stamp."""
        self._stamped: dict[str, Version] = {}
        """Versions of the last stamps, each good for one reading."""
        self._wanted: dict[str, Future[None]] = {}
        self._kept: dict[str, npt.NDArray[np.uint8]] = {}
        self._root: dict[str, str] = {}
        """The condition that the root's document is as it was read or written last."""
        self._lease: Lease | None = None

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """One listing, or a request for each of a few; what a listing lacks is asked for by itself
        where it is little."""
        wanted = list(keys)
        if len(wanted) <= _ASKED_ONE_BY_ONE or not self._writable:
            return self._objects.sizes(wanted)
        listed = dict(self._objects.listed())
        found = {key: listed[key] for key in wanted if key in listed}
        lacking = [key for key in wanted if key not in listed]
        return found | (self._objects.sizes(lacking) if len(lacking) <= _ASKED_AGAIN else {})

    def read(self, key: str) -> npt.NDArray[np.uint8]:
        """Mapped from the cache, where it has one; what came short or changed, as its own checksum
        tells, is asked for again. Of JSON, which has none, always the server's own."""
        if key.endswith(".json"):
            return self._document(key)
        for _ in range(_READINGS - 1):
            with suppress(EOFError):
                return self._object(key)
        try:
            return self._object(key)
        except WrongBytes:
            wrong = "its checksum does not match its content"
            raise OSError(errno.EBADMSG, wrong, f"{self.name}/{key}") from None
        except EOFError as error:
            raise RemoteError(
                f"{self.name}/{key}: comes cut short again and again ({error}); check the network "
                "and the server, then run the same command again"
            ) from None

    def forget(self, key: str) -> bool:
        """Remove the copy; the next reading downloads it anew."""
        self._forget_version(key)
        if self._cache is not None:
            with suppress(FileNotFoundError):
                self._cache.forget(self._file(key, self._objects.version(key)))
        return True

    def prefetch(self, keys: Iterable[str]) -> None:
        """In threads, to the cache; nothing where there is none."""
        if self._cache is None or self._settings.cache_bytes == 0:
            return
        wanted = list(keys)
        with self._guard:
            for key in [key for key, future in self._wanted.items() if future.cancel()]:
                del self._wanted[key]
            for key in [key for key, future in self._wanted.items() if future.done()]:
                del self._wanted[key]
            for key in wanted:
                if key not in self._wanted:
                    self._wanted[key] = self._bringing.submit(self._brought, key)

    def stamp(self, key: str) -> Hashable:
        """The server's tag and the size."""
        with self._guard:
            known = self._ahead.pop(key, None)
        version = known or self._objects.version(key)
        with self._guard:
            self._stamped[key] = version
        return version

    def write(self, key: str, *pieces: Any) -> None:
        """In one request, again where it fails. Raises BusyError where this writer has lost its
        lock, or another one has made or changed the root's document."""
        self._refuse_web()
        if self._lease is not None:
            self._lease.check()
        content = b"".join(memoryview(piece).cast("B") for piece in pieces)
        if key == ROOT:
            self._write_root(content)
        else:
            self._objects.put(key, content)
        self._forget_version(key)

    def remove(self, key: str) -> None:
        """Without a condition."""
        self._refuse_web()
        self._objects.delete([key])
        if key == ROOT:
            self._root = {}
        self._forget_version(key)

    def tidy(self) -> None:
        """Nothing is ever half-written here, and what is answered for is durable."""

    def lock(self, what: str, on_event: OnEvent = ignore) -> AbstractContextManager[None]:
        """See `Lease`."""
        self._refuse_web()
        self._lease = self._new_lease()
        return self._lease.held(what, on_event)

    def locked(self) -> bool:
        """By the server's clock and ours."""
        return self._writable and self._new_lease().seen()

    def folders(self) -> list[str]:
        """Common prefixes; a web server has no listing."""
        return self._objects.folders() if self._writable else []

    def is_occupied(self) -> bool:
        """A lock alone is nothing. Who asks is about to write."""
        self._refuse_web()
        return any(True for _ in self._objects.own())

    def total_bytes(self) -> int:
        """Of all but locks; 0 where nothing can be listed."""
        return sum(size for _, size in self._objects.own()) if self._writable else 0

    def clear(self) -> None:
        """One by one: whoever looks meanwhile sees the root's document go first."""
        for key in sorted((key for key, _ in self._objects.own()), key=lambda key: key != ROOT):
            self.remove(key)

    def settle(self) -> None:
        """It is durable."""

    def fellow(self) -> AbstractContextManager[None]:
        """An object of its own, renewed."""
        key = f"{FELLOWS_NAME}/{secrets.token_hex(8)}"
        return shown(self._objects.small, key, self._settings.lease)

    def is_gone(self, fellows: bool = False) -> bool:
        """Whether no lock, or no fellow's object, was renewed lately."""
        if not fellows:
            return not self.locked()
        return not any(is_shown(meta, self._settings.lease) for meta in self._objects.fellows())

    def remove_fellows(self) -> None:
        """Of killed ones."""
        self._objects.delete(str(meta["path"]) for meta in self._objects.fellows())

    def set_aside(self, what: str) -> str:
        """Not to be had: a bucket renames nothing."""
        raise RemoteError(
            f"{self.name}: is in a bucket, where a {what} cannot be renamed aside; give another "
            "--store, or remove it first"
        )

    def _forget_version(self, key: str) -> None:
        with self._guard:
            for known in (self._ahead, self._stamped, self._kept):
                known.pop(key, None)

    def _object(self, key: str) -> npt.NDArray[np.uint8]:
        cache = self._cache
        if cache is None or cache.limit == 0:
            return self._in_memory(key)
        with self._guard:
            stamped = self._stamped.pop(key, None)
        version = stamped or self._objects.version(key)
        name = self._file(key, version)
        found = cache.find(name, version.size)
        if found is None:
            found = cache.fetch(name, version.size, self._objects.download(key, version))
        return self._in_memory(key) if found is None else found

    def _in_memory(self, key: str) -> npt.NDArray[np.uint8]:
        """Of a bucket without a cache also what was read last: a verification reads it twice."""
        with self._guard:
            kept = self._kept.get(key)
        if kept is not None:
            return kept
        raw = self._objects.whole(key)
        if self._cache is None:
            with self._guard:
                self._kept[key] = raw
                while len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
        return raw

    def _document(self, key: str) -> npt.NDArray[np.uint8]:
        for reading in range(_READINGS):
            meta, raw = self._objects.document(key)
            if key == ROOT:
                self._root = condition_of(meta)
            if reading + 1 == _READINGS or _is_json(raw):
                break
        return np.frombuffer(raw, np.uint8)

    def _brought(self, key: str) -> None:
        with suppress(OSError, EOFError, CpsaeError):  # whoever reads it is told
            version = self._objects.version(key)
            name = self._file(key, version)
            assert self._cache is not None, "nothing is brought where there is no cache"
            if not self._cache.has(name):
                self._cache.fetch(name, version.size, self._objects.download(key, version))
            with self._guard:
                self._ahead[key] = version

    def _file(self, key: str, version: Version) -> str:
        return name_of(self.name, key, version.tag, str(version.size))

    def _write_root(self, content: bytes) -> None:
        try:
            self._root = self._objects.put_if(ROOT, content, self._root)
        except (*CONFLICTS, RemoteError) as error:
            with suppress(FileNotFoundError):
                if self._document(ROOT).tobytes() == content:  # ours: an answer was lost
                    return
            if isinstance(error, RemoteError):
                raise
            raise BusyError(
                f"{self.name}: another process has made or changed its {ROOT} meanwhile; wait "
                "until it ends, then run the same command again"
            ) from None

    def _new_lease(self) -> Lease:
        return Lease(self._objects.small, LOCK_NAME, self.name, self._settings.lease)

    def _refuse_web(self) -> None:
        if not self._writable:
            raise RemoteError(
                f"{self.name}: a web server is read and not written to; give a local folder or a "
                "bucket (s3://, gs://, az://)"
            )


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True
