"""Reading a store while it is written: what is not there yet is waited for."""

import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from cpsae.errors import StoreError
from cpsae.events import Note, OnEvent, ignore
from cpsae.store.bucket import Bucket
from cpsae.store.metadata import read_manifest

LOOK_SECONDS = 0.5
"""Time between two looks at what is there."""
PATIENCE_SECONDS = 60.0
"""Time without the awaited object after which the user is told what is waited for."""
GIVE_UP_SECONDS = 600.0
"""Time without it after which waiting ends, where nobody is seen to write the store."""


class StoppedWaiting(Exception):
    """Whoever waited was asked to stop; nothing is wrong with the store."""


class GrowingBucket:
    """Another bucket, of which an object that is not there yet is waited for.

    `read` and `stamp` raise StoppedWaiting where `should_stop` says so or `stop_waiting` is called
    meanwhile, and StoreError where the writer has gone. They may be called by any thread.
    """

    def __init__(
        self,
        bucket: Bucket,
        should_stop: Callable[[], bool] = lambda: False,
        on_event: OnEvent = ignore,
    ) -> None:
        self.bucket = bucket
        self.name = bucket.name
        self._should_stop = should_stop
        self._on_event = on_event
        self._let_go = 0
        self._told = False

    def stop_waiting(self) -> None:
        """End the waits that have begun; later ones are not concerned."""
        self._let_go += 1

    def wait_until(self, there: Callable[[], bool], what: str) -> None:
        """Raises as `read` does. what: what is waited for, in words."""
        began, let_go = time.monotonic(), self._let_go
        while not there():
            waited = time.monotonic() - began
            if self._should_stop() or self._let_go != let_go:
                raise StoppedWaiting
            if waited > PATIENCE_SECONDS and not self._told:
                self._told = True  # once is enough: a slow extraction makes one wait often
                text = f"{self.name}: waiting for {what}; the extraction should be running"
                self._on_event(Note(text, "warning"))
            if waited > GIVE_UP_SECONDS and not self.bucket.locked():
                raise StoreError(
                    f"{self.name}: {what} has not come for {GIVE_UP_SECONDS / 60:g} minutes, and "
                    "nothing writes here; run `cpsae extract` again, and then the same fit"
                )
            time.sleep(LOOK_SECONDS)

    def read(self, key: str) -> npt.NDArray[np.uint8]:
        """As of the other, once it is there."""
        self._wait_for(key)
        return self.bucket.read(key)

    def stamp(self, key: str) -> Hashable:
        """As of the other, once it is there."""
        self._wait_for(key)
        return self.bucket.stamp(key)

    def forget(self, key: str) -> bool:
        """As of the other."""
        return self.bucket.forget(key)

    def prefetch(self, keys: Iterable[str]) -> None:
        """As of the other; what is not there yet is not waited for."""
        self.bucket.prefetch(keys)

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Of what is there now."""
        return self.bucket.sizes(keys)

    def write(self, key: str, *pieces: Any) -> None:
        """As of the other."""
        self.bucket.write(key, *pieces)

    def remove(self, key: str) -> None:
        """As of the other."""
        self.bucket.remove(key)

    def tidy(self) -> None:
        """As of the other."""
        self.bucket.tidy()

    def lock(self, what: str, on_event: OnEvent = ignore) -> AbstractContextManager[None]:
        """As of the other."""
        return self.bucket.lock(what, on_event)

    def locked(self) -> bool:
        """As of the other."""
        return self.bucket.locked()

    def _wait_for(self, key: str) -> None:
        self.wait_until(lambda: bool(self.bucket.sizes([key])), key)


def wait_for_tokens(bucket: GrowingBucket) -> None:
    """Until all that comes before the first rows is there: the manifest, and every token."""
    bucket.wait_until(lambda: read_manifest(bucket.bucket).tokens_complete, "the store's tokens")
