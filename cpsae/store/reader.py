"""Reading a store: mapped rows whose checksum was checked, never a zero for what is missing."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property

from cpsae.errors import StoreError
from cpsae.events import OnEvent, ignore
from cpsae.store.bucket import Bucket
from cpsae.store.described import described_store
from cpsae.store.folders import find_bucket
from cpsae.store.growing import GrowingBucket, wait_for_tokens
from cpsae.store.integrity import damaged, whole_bytes
from cpsae.store.layout import CRC_BYTES, Chunk, Manifest
from cpsae.store.listing import Listing, in_words, missing_tokens
from cpsae.store.metadata import document_problems, read_manifest, rows_are_contradicted
from cpsae.store.part import StorePart
from cpsae.urls import Place, store_place


class Store:
    """An open store. `training` and `evaluation` (None where nothing is held out) are its parts."""

    def __init__(self, bucket: Bucket, manifest: Manifest, chunks: Sequence[Chunk]) -> None:
        self.bucket = bucket
        self.manifest = manifest
        self.chunks = list(chunks)
        self.d = manifest.d
        parts = {
            part.name: StorePart(bucket, part, [c for c in chunks if c.part.prefix == part.prefix])
            for part in manifest.parts()
        }
        self.training = parts["training"]
        self.evaluation = parts.get("evaluation")

    @property
    def path(self) -> Place:
        """Its folder, or its URL."""
        return store_place(self.bucket.name, "store", StoreError)

    def __fspath__(self) -> str:
        return self.bucket.name

    def __repr__(self) -> str:
        parts = [part for part in (self.training, self.evaluation) if part is not None]
        told = {part.name: part.described for part in parts}
        return described_store(self.path, self.manifest, told)

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) of what the rows are: their recipe, or, where a store was made from
        arrays, the checksums of its chunks. Not the path, and not how much is there yet."""
        digest = hashlib.sha256(json.dumps(self.manifest.identity, sort_keys=True).encode())
        if self.manifest.origin == "arrays":
            for chunk in self.chunks:
                digest.update(whole_bytes(self.bucket, chunk.key)[-CRC_BYTES:].tobytes())
        return digest.hexdigest()

    def only(self, keys: Sequence[str]) -> "Store":
        """The same store, seen as if it had these chunks alone: what a run was begun with."""
        wanted = set(keys)
        return Store(self.bucket, self.manifest, [c for c in self.chunks if c.key in wanted])


def open_store(path: str | os.PathLike[str], allow_partial: bool = False) -> Store:
    """Open a store for reading, having listed every object that it should have.

    Raises StoreError where the folder is no store, or is unfinished and `allow_partial` is off;
    DamagedStoreError where a chunk of a finished store is missing, an object has a wrong size, or
    an array's document is not as the manifest says.
    """
    return open_bucket(find_bucket(path), allow_partial)


def follow_store(
    path: str | os.PathLike[str],
    should_stop: Callable[[], bool] = lambda: False,
    on_event: OnEvent = ignore,
) -> Store:
    """Open a store that is being extracted as the complete one that it will be: whoever asks for
    rows that are not there yet waits for them. A complete one is opened as `open_store` does.

    Raises what `open_store` raises, and StoppedWaiting where `should_stop` says so before the
    store's tokens are there.
    """
    bucket = find_bucket(path)
    if read_manifest(bucket).complete:
        return open_bucket(bucket)
    growing = GrowingBucket(bucket, should_stop, on_event)
    wait_for_tokens(growing)
    opened = open_bucket(bucket, allow_partial=True)
    return Store(growing, opened.manifest, list(opened.manifest.chunks()))


def open_bucket(bucket: Bucket, allow_partial: bool = False) -> Store:
    """`open_store` of a store in any bucket."""
    manifest = read_manifest(bucket)
    documents = list(document_problems(bucket, manifest))
    problems: dict[str, list[str]] = {}
    for key, what in documents:
        problems.setdefault(what, []).append(key)
    if rows_are_contradicted(documents):
        raise damaged(bucket, problems, manifest)
    listing = Listing(bucket, manifest.chunks())
    present = listing.present()
    there = in_words(present, listing.chunks)
    _refuse_unfinished(bucket.name, manifest, allow_partial, there)
    missing = missing_tokens(bucket, manifest)
    if manifest.complete:
        missing += [key for chunk in listing.missing() for key in listing.missing_keys(chunk)]
    if missing:
        problems.setdefault("missing", []).extend(missing)
    for chunk in listing.chunks:
        for key, (_, right) in listing.wrong_sizes(chunk).items():
            what = f"not {right} bytes long (cut short or foreign)"
            problems.setdefault(what, []).append(key)
    if problems:
        raise damaged(bucket, problems, manifest)
    return Store(bucket, manifest, present)


def _refuse_unfinished(name: str, manifest: Manifest, allow_partial: bool, there: str) -> None:
    again = "run the same `cpsae extract` command again"
    if manifest.origin == "arrays":
        again = "remove it and write it again"
    if not manifest.complete and not allow_partial:
        raise StoreError(
            f"{name}: is unfinished ({there}); {again} to finish it, or use --allow-partial"
        )
    if not manifest.tokens_complete:
        raise StoreError(f"{name}: has no tokens yet; {again}")
