"""How far an extraction has got, over all its workers."""

import time
from collections.abc import Sequence

from cpsae.events import Advanced, Finished, Note, OnEvent, Started
from cpsae.store import Chunk, StoreWriter

_LOOK_SECONDS = 1.0


class Progress:
    """Reports the rows of `chunks` that are on the disk. `shared`: other workers write some of
    them, so they are looked for, but not more than once a second."""

    def __init__(
        self, writer: StoreWriter, chunks: Sequence[Chunk], shared: bool, on_event: OnEvent
    ) -> None:
        self._writer = writer
        self._shared = shared
        self._on_event = on_event
        self._left = writer.missing(chunks)
        self._looked = time.monotonic()
        self.total = sum(chunk.n_rows for chunk in chunks)
        self.done = self.total - sum(chunk.n_rows for chunk in self._left)

    def begin(self) -> None:
        """Say what there is to do."""
        if self.done and self._left:
            self._on_event(Note(f"continuing: {self.done:,} of {self.total:,} vectors are there"))
        self._on_event(Started("extract", self.total, "vector", self.done))

    def committed(self, chunk: Chunk) -> None:
        """This worker has written `chunk`."""
        if self._shared:
            self.look()
        else:
            self.done += chunk.n_rows
            self._on_event(Advanced(self.done))

    def look(self) -> bool:
        """Count what all workers have written; whether that is everything."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._left = self._writer.missing(self._left)
            self.done = self.total - sum(chunk.n_rows for chunk in self._left)
            self._on_event(Advanced(self.done))
        return not self._left

    def end(self) -> None:
        """The work is over."""
        self._on_event(Finished())
