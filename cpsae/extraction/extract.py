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
from cpsae.durable import LOCK_NAME, remove_leftovers, set_aside, temporary_target, writer_lock
from cpsae.errors import StoreError
from cpsae.events import Note, OnEvent, ignore
from cpsae.extraction.compute import ChunkPipeline
from cpsae.extraction.identity import Computing, corpus_identity, refuse_other
from cpsae.extraction.preflight import (
    gigabytes,
    refuse_full_disk,
    refuse_small_memory,
    store_bytes,
)
from cpsae.extraction.prepare import (
    check_model,
    choose_batch,
    choose_threads,
    device_record,
    geometry,
    new_manifest,
    pack_corpus,
    store_path,
)
from cpsae.extraction.progress import Progress
from cpsae.models import (
    ModelDescription,
    ModelSource,
    TruncatedModel,
    describe,
    find_source,
    load_tokenizer,
)
from cpsae.store import Manifest, StoreWriter, open_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import ROOT
from cpsae.store.metadata import read_manifest as read_manifest_of
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
    settings: ExtractSettings,
    on_event: OnEvent = ignore,
    worker: Worker | None = None,
    fresh: bool = False,
) -> Extraction:
    """Fill the store that `settings` describe, from wherever an earlier call got to, or with
    `fresh` from nothing, once all that can be checked before is found right and the old store is
    renamed aside.

    Raises a CpsaeError, with everything committed before in place, for any condition that the
    user can mend; see docs/guide.md for the list.
    """
    worker = worker or Worker.from_environment()
    path = store_path(settings)
    began = time.monotonic()
    old = fresh and (path / ROOT).exists()
    manifest = None if old else existing_manifest(path)
    if manifest is not None:
        refuse_other(settings, manifest, {})
        if manifest.complete and _names_same_model(settings, manifest):
            open_store(path)  # lists every file: the mark alone does not show one that is gone
            on_event(Note(f"{path} is complete"))
            return _result(path, manifest, 0, began)
    job = _Job(settings, path, worker, on_event, manifest)
    if not worker.leads:
        job.wait_for_tokens()
        return _result(path, job.manifest_now(), job.fill(), began)
    if old:
        on_event(Note(f"{path} is kept as {set_aside(path, 'store')}"))
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
        return read_manifest_of(Folder(path))
    if path.exists() and (not path.is_dir() or any(not _is_leftover(p) for p in path.iterdir())):
        raise StoreError(f"{path}: is there already and is no store; choose another --store")
    return None


def _is_leftover(path: Path) -> bool:
    """Whether a killed writer may have left this behind where there is nothing else."""
    return path.name == LOCK_NAME or temporary_target(path) is not None


def _names_same_model(settings: ExtractSettings, manifest: Manifest) -> bool:
    """Whether the model's name alone says that it is the one the store is of."""
    model = manifest.model
    if model is None or model.id != settings.model:
        return False
    return settings.revision in (None, model.revision)


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
            settings.model, _revision(settings, begun), settings.trust_remote_code
        )
        recorded = begun.identity if begun else {}
        attention = settings.attention
        if attention == "auto":
            attention = recorded.get("attention", "auto")
        self.description: ModelDescription = describe(self.source, attention)
        self.description.check_layer(settings.layer)
        self.description.check_tokens(settings.tokens)
        device = choose_device(settings.device, worker.local_rank)
        dtype = recorded.get("dtype", "auto") if settings.dtype == "auto" else settings.dtype
        chosen = choose_batch(settings, self.description.d, device)
        batch = settings.batch_contexts or recorded.get("batch_contexts") or chosen
        self.computing = Computing(
            device=device,
            dtype=choose_dtype(dtype, device),
            attention=self.description.attention,
            batch_contexts=batch,
        )
        if begun is None:
            corpus_identity(settings)  # a local one that is not there is missed before any work
        else:
            refuse_other(settings, begun, self.computing.identity())
        self._preflight(begun)
        self.model: TruncatedModel | None = None

    def _preflight(self, begun: Manifest | None) -> None:
        """Refuse what cannot fit, before any work. Raises DiskError, ModelError."""
        planned = Manifest(**geometry(self.settings, self.description.d), identity={}, software={})
        wanted = store_bytes(planned)
        refuse_full_disk(self.path, int(wanted * self._share_left(begun)))
        what, parameters = "the used blocks", self.description.parameters(self.settings.layer)
        if self.worker.leads and not (begun and begun.tokens_complete):
            what += " and the whole model, which a self-test compares them with,"
            parameters += self.description.parameters(self.description.n_layers - 1)
        refuse_small_memory(
            what,
            parameters,
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

    def _share_left(self, begun: Manifest | None) -> float:
        """Of the chunks: how much of the store is yet to be written."""
        if begun is None:
            return 1.0
        writer = StoreWriter(self.path, begun)
        return len(writer.missing(writer.chunks)) / len(writer.chunks)

    def prepare(self) -> None:
        """Settle the tokens, test the model, create the store and put the tokens into it."""
        tokenizer = load_tokenizer(self.source)
        packed = pack_corpus(self.settings, tokenizer, self.on_event)
        threads = choose_threads(self.computing.device, self.worker)
        self._set_threads(threads)
        self.model = self._load()
        check_model(self.model, self.source, packed, tokenizer, self.on_event)
        manifest = new_manifest(
            self.settings,
            self.description,
            self.computing,
            self.model.fingerprint(),
            tokenizer,
            packed,
            threads,
        )
        remove_leftovers(self.path)
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
        pipeline = ChunkPipeline(model, open_store(self.path, allow_partial=True), writer)
        shared = self.worker.leads and self.worker.count > 1
        chunks = writer.chunks if shared else writer.own_chunks
        progress = Progress(writer, chunks, shared, self.on_event)
        progress.begin()
        pipeline.run(missing, progress.committed)
        while shared and not progress.look():
            time.sleep(_POLL_SECONDS)
        progress.end()
        return len(missing)

    def complete(self) -> None:
        """Set the completion mark. Raises StoreError where chunks vanished meanwhile."""
        writer = StoreWriter(self.path, self.manifest_now())
        if not writer.manifest.complete:
            writer.finish()
        self.on_event(Note(f"{self.path} is complete"))

    def manifest_now(self) -> Manifest:
        """As it is on the disk at this moment."""
        return read_manifest_of(Folder(self.path))

    def _load(self) -> TruncatedModel:
        return TruncatedModel.load(
            self.source,
            self.settings.layer,
            self.computing.dtype,
            self.computing.device,
            self.computing.attention,
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


def _revision(settings: ExtractSettings, begun: Manifest | None) -> str | None:
    """The revision asked for, else the commit that the store was begun with: a branch moves."""
    if settings.revision or begun is None or begun.model is None:
        return settings.revision
    return begun.model.revision if begun.model.id == settings.model else None


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
