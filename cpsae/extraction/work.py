"""A worker's share of the chunks, and how far all of them have got."""

import time
from collections.abc import Mapping, Sequence

from cpsae.config.extraction import Site
from cpsae.errors import StoreError
from cpsae.events import Advanced, Finished, Note, OnEvent, Started
from cpsae.extraction import waiting
from cpsae.extraction.compute import ChunkPipeline, Piece
from cpsae.extraction.lead import load_model
from cpsae.extraction.machine import set_threads, warn_of_other_device
from cpsae.extraction.plan import Plan, Target
from cpsae.models import TruncatedModel
from cpsae.store import Chunk, StoreWriter
from cpsae.store.folders import home_at
from cpsae.store.reader import open_bucket


def wait_for_tokens(plan: Plan, on_event: OnEvent) -> None:
    """Until the leading worker has settled the tokens: not in a collective, which times out."""
    what = f"worker 0 to settle the tokens of {plan.place}"
    patience = waiting.Patience(plan.worker, what, on_event, home_at(plan.place).is_gone)
    told = False
    while not all(map(_has_tokens, plan.targets)):
        if not told:
            on_event(Note(f"worker {plan.worker.rank} waits for the tokens", "detail"))
            told = True
        patience.wait([target.manifest is not None for target in plan.targets])


def _has_tokens(target: Target) -> bool:
    try:
        manifest = target.read()
    except StoreError:  # it is being made
        return False
    return manifest is not None and manifest.tokens_complete


def fill(plan: Plan, model: TruncatedModel | None, on_event: OnEvent) -> int:
    """Compute this worker's missing chunks; how many pieces there were. model: where it is loaded
    already. Raises what the model or the disk raises; what is committed stays."""
    first = plan.targets[0].known
    set_threads(first.device, on_event)
    warn_of_other_device(plan.computing.device, first.device, on_event)
    loaded = model or load_model(plan)
    writers: dict[Site, StoreWriter] = {}
    for target in plan.targets:
        model_of_site = {"model": loaded.fingerprint(target.site.layer)}
        known = {**plan.computing.identity(), **model_of_site}
        target.refuse_other(known, plan.worker)
        rank, count = plan.worker.rank, plan.worker.count
        writers[target.site] = StoreWriter(target.home, target.known, rank, count)
    for writer in writers.values():
        writer.tidy()
    pieces = missing_pieces(writers, {s: w.own_chunks for s, w in writers.items()})
    shared = plan.worker.is_leader and plan.worker.count > 1
    progress = Progress(writers, shared, on_event)
    progress.begin()
    if pieces:
        store = open_bucket(plan.targets[0].home, allow_partial=True)
        ChunkPipeline(loaded, store, writers).run(pieces, progress.committed)
    what = f"the chunks of the other workers in {plan.place}"
    first_store = plan.targets[0].home
    patience = waiting.Patience(
        plan.worker, what, on_event, lambda: first_store.is_gone(fellows=True)
    )
    while shared and not progress.look():
        patience.wait(progress.done)
    progress.end()
    return len(pieces)


def missing_pieces(
    writers: Mapping[Site, StoreWriter], chunks: Mapping[Site, Sequence[Chunk]]
) -> list[Piece]:
    """Of these chunks of each site, equal in number and order: those that some store lacks."""
    lacking = {site: set(writers[site].missing(own)) for site, own in chunks.items()}
    pieces = [
        {site: chunk for site, chunk in zip(chunks, same, strict=True) if chunk in lacking[site]}
        for same in zip(*chunks.values(), strict=True)
    ]
    return [piece for piece in pieces if piece]


class Progress:
    """Reports the rows of one site that are on the disk in all stores. `shared`: other workers
    write some of them, so they are looked for, but not more than once a second."""

    def __init__(self, writers: dict[Site, StoreWriter], shared: bool, on_event: OnEvent) -> None:
        self._writers = writers
        self._shared = shared
        self._on_event = on_event
        chunks = {s: w.chunks if shared else w.own_chunks for s, w in writers.items()}
        self._left = missing_pieces(writers, chunks)
        self._looked = time.monotonic()
        self.total = sum(chunk.n_rows for chunk in next(iter(chunks.values())))
        self.done = self.total - _rows(self._left)

    def begin(self) -> None:
        """Say what there is to do."""
        if self.done and self._left:
            self._on_event(Note(f"continuing: {self.done:,} of {self.total:,} vectors are there"))
        self._on_event(Started("extract", self.total, "vector", self.done))

    def committed(self, piece: Piece) -> None:
        """This worker has written `piece`."""
        if self._shared:
            self.look()
        else:
            self.done += _rows([piece])
            self._on_event(Advanced(self.done))

    def look(self) -> bool:
        """Count what all workers have written; whether that is everything."""
        now = time.monotonic()
        if now - self._looked >= waiting.LOOK_SECONDS:
            self._looked = now
            lacking = {
                site: set(writer.missing(piece[site] for piece in self._left if site in piece))
                for site, writer in self._writers.items()
            }
            self._left = [
                piece
                for piece in self._left
                if any(chunk in lacking[site] for site, chunk in piece.items())
            ]
            self.done = self.total - _rows(self._left)
            self._on_event(Advanced(self.done))
        return not self._left

    def end(self) -> None:
        """The work is over."""
        self._on_event(Finished())


def _rows(pieces: Sequence[Piece]) -> int:
    return sum(next(iter(piece.values())).n_rows for piece in pieces)
