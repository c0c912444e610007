"""Stage 1: from text and a language model to a store of activations.

The tokens are settled first and kept in the store; from then on every chunk is a pure function of
(tokens, model, dtype), so continuing is computing the chunks that are missing, on any worker.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpsae.config import ExtractSettings
from cpsae.device import choose_device, choose_dtype
from cpsae.errors import StoreError
from cpsae.events import Advanced, Finished, Note, OnEvent, Started, ignore
from cpsae.extraction.compute import ChunkPipeline
from cpsae.extraction.identity import Computing, refuse_other
from cpsae.extraction.preflight import (
    gigabytes,
    refuse_full_disk,
    refuse_small_memory,
    store_bytes,
)
from cpsae.extraction.prepare import (
    choose_batch,
    choose_threads,
    device_record,
    geometry,
    new_manifest,
    pack_corpus,
    store_path,
    test_model,
)
from cpsae.models import (
    ModelDescription,
    ModelSource,
    TruncatedModel,
    describe,
    find_source,
    load_tokenizer,
)
from cpsae.store import Chunk, Manifest, StoreWriter, open_store
from cpsae.store.commit import writer_lock
from cpsae.store.documents import ROOT, read_manifest
from cpsae.workers import Worker

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Extraction:
    """What an extraction came to; rows count the training part."""

    path: Path
    vectors: int
    evaluation_vectors: int
    d: int
    computed_chunks: int
    """By this worker, in this call; 0 where the store was complete already."""
    seconds: float


def extract(
    settings: ExtractSettings, on_event: OnEvent = ignore, worker: Worker | None = None
) -> Extraction:
    """Fill the store that `settings` describe, from wherever an earlier call got to.

    Raises a CpsaeError, with everything committed before in place, for any condition that the
    user can mend; see docs/guide.md for the list.
    """
    worker = worker or Worker.from_environment()
    path = store_path(settings)
    began = time.monotonic()
    manifest = existing_manifest(path)
    if manifest is not None:
        refuse_other(settings, manifest, {})
        if manifest.complete and manifest.model and manifest.model.id == settings.model:
            on_event(Note(f"{path} is complete"))
            return _result(path, manifest, 0, began)
    job = _Job(settings, path, worker, on_event, manifest)
    if not worker.leads:
        job.wait_for_tokens()
        return _result(path, job.manifest_now(), job.fill(), began)
    with writer_lock(path, "store"):
        if existing_manifest(path) is None or not job.manifest_now().tokens_complete:
            job.prepare()
        computed = job.fill()
        job.complete()
    return _result(path, job.manifest_now(), computed, began)


def existing_manifest(path: Path) -> Manifest | None:
    """The manifest of a store that was begun at `path`; None where there is nothing yet.

    Raises StoreError where something else is in the way.
    """
    if (path / ROOT).exists():
        return read_manifest(path)
    if path.exists() and (not path.is_dir() or any(not p.name == ".lock" for p in path.iterdir())):
        raise StoreError(f"{path}: is there already and is no store; choose another --store")
    return None


class _Job:
    """One worker's share of one extraction."""

    def __init__(
        self,
        settings: ExtractSettings,
        path: Path,
        worker: Worker,
        on_event: OnEvent,
        begun: Manifest | None,
    ) -> None:
        self.settings = settings
        self.path = path
        self.worker = worker
        self.on_event = on_event
        self.source: ModelSource = find_source(
            settings.model, settings.revision, settings.trust_remote_code
        )
        self.description: ModelDescription = describe(self.source, settings.attention)
        self.description.check_layer(settings.layer)
        self.description.check_tokens(settings.tokens)
        device = choose_device(settings.device, worker.local_rank)
        recorded = begun.identity if begun else {}
        dtype = recorded.get("dtype", "auto") if settings.dtype == "auto" else settings.dtype
        batch = settings.batch_contexts or recorded.get("batch_contexts")
        self.computing = Computing(
            device=device,
            dtype=choose_dtype(dtype, device),
            attention=self.description.attention,
            batch_contexts=batch or choose_batch(settings, self.description.d, device),
        )
        self._preflight()
        self.model: TruncatedModel | None = None

    def _preflight(self) -> None:
        """Refuse what cannot fit, before any work. Raises DiskError, ModelError."""
        choose_batch(self.settings, self.description.d, self.computing.device)
        planned = Manifest(**geometry(self.settings, self.description.d), identity={}, software={})
        wanted = store_bytes(planned)
        there = sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())
        refuse_full_disk(self.path, max(0, wanted - there))
        refuse_small_memory(
            self.description.parameters(self.settings.layer),
            self.computing.dtype,
            self.computing.device,
            self.computing.batch_contexts * self.settings.tokens * self.description.d,
        )
        if self.worker.leads:
            self.on_event(
                Note(
                    f"{self.settings.vectors:,} vectors of {self.description.name} layer "
                    f"{self.settings.layer} (d = {self.description.d}): "
                    f"{gigabytes(wanted)} in {self.path}"
                )
            )

    def prepare(self) -> None:
        """Settle the tokens, test the model, create the store and put the tokens into it."""
        tokenizer = load_tokenizer(self.source)
        packed = pack_corpus(self.settings, tokenizer, self.on_event)
        threads = choose_threads(self.computing.device, self.worker)
        self._set_threads(threads)
        self.model = self._load()
        test_model(self.model, self.source, packed, tokenizer, self.on_event)
        manifest = new_manifest(
            self.settings,
            self.description,
            self.computing,
            self.model.fingerprint(),
            tokenizer,
            packed,
            threads,
        )
        writer = StoreWriter.create(self.path, manifest)
        writer.write_tokens({"training": packed.training, "evaluation": packed.evaluation})

    def wait_for_tokens(self) -> None:
        """Until the leading worker has settled the tokens: not in a collective, which times out."""
        told = False
        while True:
            manifest = existing_manifest_quietly(self.path)
            if manifest is not None and manifest.tokens_complete:
                return
            if not told:
                self.on_event(Note(f"worker {self.worker.rank} waits for the tokens", "detail"))
                told = True
            time.sleep(_POLL_SECONDS)

    def fill(self) -> int:
        """Compute this worker's missing chunks; how many there were."""
        manifest = self.manifest_now()
        if manifest.device:
            self._set_threads(manifest.device.threads)
            self._warn_of_other_device(manifest)
        model = self.model or self._load()
        known: dict[str, Any] = self.computing.identity()
        if self.model is None:
            known["model"] = model.fingerprint()
        refuse_other(self.settings, manifest, known)
        writer = StoreWriter(self.path, manifest, self.worker.rank, self.worker.count)
        writer.tidy()
        missing = writer.missing()
        self._run(ChunkPipeline(model, open_store(self.path, allow_partial=True), writer), missing)
        return len(missing)

    def _run(self, pipeline: ChunkPipeline, missing: list[Chunk]) -> None:
        own = pipeline.writer.own_chunks
        total, left = (sum(chunk.n_rows for chunk in some) for some in (own, missing))
        done = total - left
        if done and missing:
            self.on_event(Note(f"continuing: {done:,} of {total:,} vectors are there"))
        self.on_event(Started("extract", total, "vector", done))

        def on_chunk(chunk: Chunk) -> None:
            nonlocal done
            done += chunk.n_rows
            self.on_event(Advanced(done))

        pipeline.run(missing, on_chunk)
        self.on_event(Finished())

    def complete(self) -> None:
        """Wait for the other workers' chunks, then set the completion mark."""
        writer = StoreWriter(self.path, self.manifest_now())
        while writer.missing(writer.chunks):
            if self.worker.count == 1:
                raise StoreError(f"{self.path}: chunks vanished while it was written")
            time.sleep(_POLL_SECONDS)
        if not writer.manifest.complete:
            writer.finish()
        self.on_event(Note(f"{self.path} is complete"))

    def manifest_now(self) -> Manifest:
        """As it is on the disk at this moment."""
        return read_manifest(self.path)

    def _load(self) -> TruncatedModel:
        return TruncatedModel.load(
            self.source,
            self.settings.layer,
            self.computing.dtype,
            self.computing.device,
            self.settings.attention,
        )

    def _set_threads(self, threads: int | None) -> None:
        if threads is not None and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
            self.on_event(Note(f"using {threads} threads, as the store's bytes need", "detail"))

    def _warn_of_other_device(self, manifest: Manifest) -> None:
        now = device_record(self.computing.device, None)
        begun = manifest.device
        if begun and begun.kind == now.kind and begun.name != now.name:
            self.on_event(
                Note(
                    f"begun on {begun.name}, continued on {now.name}: the new chunks may "
                    "differ in the last bits from what the old device would give",
                    "warning",
                )
            )


def existing_manifest_quietly(path: Path) -> Manifest | None:
    """`existing_manifest` for one who watches the store being made."""
    try:
        return existing_manifest(path)
    except StoreError:
        return None


def _result(path: Path, manifest: Manifest, computed: int, began: float) -> Extraction:
    return Extraction(
        path,
        manifest.vectors,
        manifest.evaluation_vectors,
        manifest.d,
        computed,
        time.monotonic() - began,
    )
