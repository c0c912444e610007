"""Requests about the objects below a URL, each of whose failures is one line."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import obstore

from cpsae.durable import FELLOWS_NAME, LOCK_NAME
from cpsae.store.integrity import is_right
from cpsae.store.layout import CRC_BYTES, has_checksum
from cpsae.store.remote.answers import explained
from cpsae.store.remote.cache import Fill
from cpsae.store.remote.connection import connect
from cpsae.urls import StoreUrl

_ASKING = 16
"""Threads for requests without a body."""
_BLOCK_BYTES = 1 << 22


class Version(NamedTuple):
    """Which content of an object: as the server names it, and its bytes."""

    tag: str
    size: int


class WrongBytes(EOFError):
    """What came is not what its own checksum is of: the network, or the server, changed it."""


class _Watch:
    """Whether the last four of `size` bytes that pass are the CRC-32C of those before them."""

    def __init__(self, size: int) -> None:
        self._left = size - CRC_BYTES
        self._checksum = 0
        self._tail = b""

    def see(self, block: memoryview) -> None:
        """The next bytes."""
        body = np.frombuffer(block, np.uint8)[: max(self._left, 0)]
        body.flags.writeable = False  # the checksum's C code takes read-only buffers alone
        if len(body):
            self._checksum = google_crc32c.extend(self._checksum, body)
        self._left -= len(body)
        self._tail += bytes(block[len(body) :])

    def is_right(self) -> bool:
        """Of all of them."""
        return self._tail == self._checksum.to_bytes(CRC_BYTES, "little")


class Objects:
    """What the server is asked; `small` requests are given up sooner than those of whole chunks."""

    def __init__(self, url: StoreUrl, patience: float) -> None:
        self.name = str(url)
        silence = min(15.0, patience / 3)
        self.small = connect(url, silence, patience, silence)
        self._large = connect(url, patience, 3 * patience, 20 * patience)
        self._asking = ThreadPoolExecutor(_ASKING, thread_name_prefix="remote")

    def version(self, key: str) -> Version:
        """Of an object that is there. Raises FileNotFoundError."""
        with explained(self.name, key):
            return _version(obstore.head(self.small, key))

    def sizes(self, keys: list[str]) -> dict[str, int]:
        """Of those that are there, each asked for by itself."""
        found = self._asking.map(self._size, keys) if len(keys) > 1 else map(self._size, keys)
        sizes = dict(zip(keys, found, strict=True))
        return {key: size for key, size in sizes.items() if size is not None}

    def listed(self) -> Iterator[tuple[str, int]]:
        """Key and size of all that is there."""
        with explained(self.name):
            for block in obstore.list(self.small, chunk_size=1000):
                for meta in block:
                    yield meta["path"], meta["size"]

    def own(self) -> Iterator[tuple[str, int]]:
        """The same, without what shows that somebody is writing."""
        for key, size in self.listed():
            if key != LOCK_NAME and not key.startswith(f"{FELLOWS_NAME}/"):
                yield key, size

    def fellows(self) -> list[Mapping[str, Any]]:
        """What shows that."""
        with explained(self.name):
            found = obstore.list(self.small, prefix=FELLOWS_NAME).collect()
            return [dict(meta) for meta in found]

    def folders(self) -> list[str]:
        """Names one level below."""
        with explained(self.name):
            return [str(p) for p in obstore.list_with_delimiter(self.small)["common_prefixes"]]

    def document(self, key: str) -> tuple[Any, bytes]:
        """What the server says of a small object, and its bytes."""
        with explained(self.name, key):
            result = obstore.get(self.small, key)
            return result.meta, bytes(result.bytes())

    def whole(self, key: str) -> npt.NDArray[np.uint8]:
        """A whole object, in memory, read-only. Raises EOFError where it comes short, WrongBytes
        where it has a checksum that is not right."""
        with explained(self.name, key):
            result = obstore.get(self._large, key)
            size, raw = result.meta["size"], np.frombuffer(memoryview(result.bytes()), np.uint8)
        if len(raw) != size:
            raise EOFError(f"{len(raw)} of {size} bytes")
        raw.flags.writeable = False
        if has_checksum(key) and not is_right(raw):
            raise WrongBytes
        return raw

    def download(self, key: str, version: Version) -> Fill:
        """What brings that version, block by block. Raises EOFError where it is another by now or
        comes short, WrongBytes as `whole` does."""

        def fill(put: Callable[[memoryview], None]) -> None:
            with explained(self.name, key):
                result = obstore.get(self._large, key)
                if _version(result.meta) != version:
                    raise EOFError("it changed meanwhile")
                watch = _Watch(version.size)
                for block in result.stream(min_chunk_size=_BLOCK_BYTES):
                    view = memoryview(block)
                    watch.see(view)
                    put(view)
                if has_checksum(key) and not watch.is_right():
                    raise WrongBytes

        return fill

    def put(self, key: str, content: bytes) -> None:
        """In one request, again where it fails."""
        with explained(self.name, key):
            obstore.put(self._large, key, content, use_multipart=False)

    def put_if(self, key: str, content: bytes, condition: Mapping[str, str]) -> dict[str, str]:
        """Where it is still as `condition` says, or absent where that is empty; the condition on
        what it is now. Raises obstore's conflicts, as they are."""
        mode: Any = condition or "create"
        with explained(self.name, key):
            return condition_of(
                obstore.put(self.small, key, content, mode=mode, use_multipart=False)
            )

    def delete(self, keys: Iterable[str]) -> None:
        """Without a condition, those that are there."""
        for key in keys:
            with suppress(FileNotFoundError), explained(self.name, key):
                obstore.delete(self.small, key)

    def _size(self, key: str) -> int | None:
        try:
            return self.version(key).size
        except FileNotFoundError:
            return None


def condition_of(meta: Any) -> dict[str, str]:
    """That an object is still what the server said there."""
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def _version(meta: Any) -> Version:
    tag = meta.get("e_tag") or meta["last_modified"].isoformat()
    return Version(str(tag), int(meta["size"]))
