"""Damaged chunks of a store, computed again from the tokens that it keeps, with the model that it
was made with."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cpsae.config.extraction import Site
from cpsae.device import threads_put_back
from cpsae.errors import DamagedStoreError, ModelError, StoreError
from cpsae.events import Advanced, Finished, OnEvent, Started
from cpsae.extraction.compute import ChunkPipeline
from cpsae.extraction.machine import set_threads, warn_of_other_device
from cpsae.models import ModelSource, TruncatedModel
from cpsae.store import Chunk, Manifest, StoreWriter
from cpsae.store.bucket import Bucket
from cpsae.store.folders import find_bucket
from cpsae.store.integrity import checked_bytes
from cpsae.store.layout import CRC_BYTES, HookRecord, ModelRecord
from cpsae.store.metadata import read_manifest
from cpsae.store.reader import open_bucket
from cpsae.store.repair import remove_damaged
from cpsae.tensors import TORCH_DTYPES


@dataclass(frozen=True)
class Recomputed:
    """A chunk that was computed again, against what was left of the old one."""

    key: str
    same: bool | None
    """Whether it is byte for byte the old one, as the checksum or the norms (of all rows, with
    their own checksum) that were left of it say; None where neither was left."""
    norm_difference: float | None
    """The largest difference of a row's norm, of the old norm; None where no norms were left."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def model_of(path: str | os.PathLike[str]) -> ModelRecord:
    """The model of the store at `path`. Raises StoreError where its rows are of none."""
    return _records(path, read_manifest(find_bucket(path)))[0]


def recompute(
    path: str | os.PathLike[str],
    keys: Sequence[str],
    source: ModelSource,
    device: torch.device,
    on_event: OnEvent,
) -> list[Recomputed]:
    """Remove the damaged objects `keys` and compute the chunks that are then missing of those that
    they belong to; the store is complete again where nothing else was missing.

    Raises ModelError, and touches nothing, where the weights are not those of the store;
    StoreError where it cannot be repaired (`cpsae.store.repair.why_not`).
    """
    bucket = find_bucket(path)
    manifest = read_manifest(bucket)
    record, hook = _records(path, manifest)
    site = Site(hook.layer, hook.name)
    with threads_put_back():
        set_threads(manifest.device, on_event)
        warn_of_other_device(device, manifest.device, on_event)
        dtype = TORCH_DTYPES[record.dtype]
        model = TruncatedModel.load(source, [site], dtype, device, record.attention)
        if model.fingerprint(site.layer) != record.fingerprint:
            raise ModelError(
                f"model {source.name}: is not the one that {path} was made with ({record.id}): its "
                f"weights up to layer {site.layer} are others; give that one with --model"
            )
        chunks = [chunk for chunk in manifest.chunks() if chunk.key in keys]
        left = {chunk.key: _Remains.of(bucket, chunk) for chunk in chunks}
        remove_damaged(path, keys)
        with bucket.lock("store", on_event):
            _compute(bucket, model, site, chunks, on_event)
    return [left[chunk.key].against(bucket, chunk) for chunk in chunks]


def _compute(
    bucket: Bucket,
    model: TruncatedModel,
    site: Site,
    chunks: Sequence[Chunk],
    on_event: OnEvent,
) -> None:
    writer = StoreWriter(bucket, read_manifest(bucket))
    missing = writer.missing(chunks)
    on_event(Started("repair", sum(chunk.n_rows for chunk in missing), "vector"))
    done = 0

    def committed(piece: Any) -> None:
        nonlocal done
        done += piece[site].n_rows
        on_event(Advanced(done))

    store = open_bucket(bucket, allow_partial=True)
    pieces = [{site: chunk} for chunk in missing]
    ChunkPipeline(model, store, {site: writer}).run(pieces, committed)
    on_event(Finished())
    if not writer.manifest.complete and not writer.missing(writer.chunks):
        writer.finish()


@dataclass(frozen=True)
class _Remains:
    """What a damaged chunk leaves to compare a new one with."""

    checksum: bytes | None
    """As it stands at the end of a file of the right length: it may be what is damaged."""
    norms: bytes | None
    """Whole ones."""

    @classmethod
    def of(cls, bucket: Bucket, chunk: Chunk) -> "_Remains":
        checksum = None
        if bucket.sizes([chunk.key]).get(chunk.key) == chunk.file_bytes:
            with suppress(OSError):  # a disk that fails, or a bucket that hands out nothing wrong
                checksum = bucket.read(chunk.key)[-CRC_BYTES:].tobytes()
        return cls(checksum, _whole(bucket, chunk.norms_key))

    def against(self, bucket: Bucket, chunk: Chunk) -> Recomputed:
        """The chunk that is there now."""
        checksum = bucket.read(chunk.key)[-CRC_BYTES:].tobytes()
        new = checked_bytes(bucket, chunk.norms_key)[:-CRC_BYTES].tobytes()
        if self.norms is None:
            return Recomputed(chunk.key, True if checksum == self.checksum else None, None)
        old_norms, new_norms = (np.frombuffer(raw, "<f4") for raw in (self.norms, new))
        difference = np.abs(new_norms - old_norms) / np.maximum(old_norms, np.float32(1e-30))
        same = checksum == self.checksum or new == self.norms
        return Recomputed(chunk.key, same, float(difference.max()))


def _whole(bucket: Bucket, key: str) -> bytes | None:
    try:
        return checked_bytes(bucket, key)[:-CRC_BYTES].tobytes()
    except DamagedStoreError:
        return None


def _records(path: str | os.PathLike[str], manifest: Manifest) -> tuple[ModelRecord, HookRecord]:
    if manifest.model is None or manifest.hook is None:
        raise StoreError(
            f"{path}: was made from arrays, so no model gives its rows; leave --model out"
        )
    return manifest.model, manifest.hook
