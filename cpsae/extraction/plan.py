"""What an extraction is to do: which stores, of which sites, computed how. Everything is decided
here, before any work, and carried in one object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cpsae.config import ExtractSettings
from cpsae.config.extraction import Site
from cpsae.corpus import Corpus
from cpsae.device import choose_device, choose_dtype
from cpsae.durable import is_leftover
from cpsae.errors import SettingsError, StoreError
from cpsae.events import Note, OnEvent
from cpsae.extraction.compute import buffer_sets
from cpsae.extraction.identity import Computing, corpus_identity, refuse_other
from cpsae.extraction.preflight import (
    refuse_full_disk,
    refuse_small_memory,
    store_bytes,
)
from cpsae.extraction.prepare import choose_batch, geometry
from cpsae.memory import gigabytes
from cpsae.models import ModelDescription, ModelSource, describe, find_source
from cpsae.store import Manifest, StoreWriter, is_store, stores_in
from cpsae.store.bucket import Home
from cpsae.store.folders import holds_store, home_at, names_site, site_folder, site_of
from cpsae.store.layout import NUMPY_DTYPES
from cpsae.store.metadata import read_manifest
from cpsae.urls import Place, store_place
from cpsae.workers import Worker


@dataclass
class Target:
    """One store of an extraction."""

    site: Site
    settings: ExtractSettings
    """Of this site alone, into this store."""
    path: Place
    manifest: Manifest | None
    """As it was read, or made, last; None where there is nothing yet."""
    is_beside: bool = False
    """Whether it is only in the same folder, and of a site that is not asked for."""

    @cached_property
    def home(self) -> Home:
        """Where it is; one and the same for all who write, as a lock is of one."""
        return home_at(self.path)

    def read(self) -> Manifest | None:
        """The manifest as it is there now, which is kept. Raises StoreError where something else is
        in the way."""
        self.manifest = _existing_manifest(self.home)
        return self.manifest

    @property
    def known(self) -> Manifest:
        """The manifest of a store that is there."""
        assert self.manifest is not None, f"{self.path} is not there yet"
        return self.manifest

    def refuse_other(self, known: Mapping[str, Any], worker: Worker) -> None:
        """Raises DifferentSettingsError where the store that is there was begun otherwise."""
        remedy = "give the same ones, another --store, or --fresh"
        if self.is_beside:
            remedy = "all stores in a folder are of the same rows: give the same ones, or another "
            remedy += "--store"
        refuse_other(self.settings, self.home, self.known, known, worker, remedy)


@dataclass(frozen=True)
class Plan:
    """Everything that was decided."""

    settings: ExtractSettings
    place: Place
    """The store, or the folder of stores."""
    targets: list[Target]
    beside: list[Target]
    """Stores of other sites in the same folder, whose rows are of the same contexts."""
    worker: Worker
    source: ModelSource
    description: ModelDescription
    computing: Computing


def place_of(settings: ExtractSettings) -> Place:
    """Where the store, or the folder of stores, is. Raises SettingsError for a URL that is none of
    a store."""
    return store_place(settings.store, "--store", SettingsError)


def _refuse_inside_corpus(settings: ExtractSettings, place: Place) -> None:
    """Else the store would be read as a part of what it is made of."""
    if not isinstance(place, Path):
        return
    corpus = Corpus.from_settings(settings)
    if corpus.path.is_dir() and place.resolve().is_relative_to(corpus.path.resolve()):
        raise SettingsError(
            f"--store {settings.store}: lies inside the data set {settings.dataset}; choose a "
            "place outside of it"
        )


def find_targets(settings: ExtractSettings, fresh: bool = False) -> list[Target]:
    """The stores that these settings mean, with what is there of them; with `fresh` as if there
    were none. Raises StoreError where something else is in the way, SettingsError for a URL."""
    place = place_of(settings)
    _refuse_inside_corpus(settings, place)
    sites = settings.sites
    if len(sites) == 1:
        inside = stores_in(place)
        if inside:
            raise StoreError(
                f"{place}: is a folder of stores ({', '.join(path.name for path in inside)}), not "
                "one; name one of them with --store, or choose another"
            )
        paths: dict[Site, Place] = {sites[0]: place}
    else:
        _refuse_no_folder_of_stores(place)
        paths = {site: place / site_folder(*site) for site in sites}
    targets = []
    for site, path in paths.items():
        target = Target(site, settings.of_site(site, str(path)), path, None)
        if not (fresh and holds_store(target.home)):
            target.read()
        targets.append(target)
    return targets


def _stores_beside(settings: ExtractSettings, targets: list[Target]) -> list[Target]:
    """The stores in the same folder that are not among the targets."""
    if len(targets) == 1:
        return []
    own = {target.path for target in targets}
    beside = []
    for path in stores_in(place_of(settings)):
        if path not in own:
            site = site_of(path.name)
            target = Target(site, settings.of_site(site, str(path)), path, None, True)
            target.read()
            beside.append(target)
    return beside


def _refuse_no_folder_of_stores(place: Place) -> None:
    if is_store(place):
        raise StoreError(
            f"{place}: is the store of one site; several go into a folder of stores: choose "
            "another --store"
        )
    home = home_at(place)
    if isinstance(place, Path):
        file = place.exists() and not place.is_dir()
        names = place.iterdir() if place.is_dir() else ()
        foreign = file or any(not names_site(p.name) and not is_leftover(p) for p in names)
    else:
        foreign = home.is_occupied() and not all(map(names_site, home.folders()))
    if foreign:
        raise StoreError(f"{place}: is there already and is no folder of stores; choose another")


def _existing_manifest(home: Home) -> Manifest | None:
    if holds_store(home):
        return read_manifest(home)
    if home.is_occupied():
        raise StoreError(f"{home.name}: is there already and is no store; choose another --store")
    return None


def make_plan(
    settings: ExtractSettings, targets: list[Target], worker: Worker, on_event: OnEvent
) -> Plan:
    """Decide everything, and refuse what cannot work. Reads no weights and no text.

    Raises ModelError, SettingsError, CorpusError, DifferentSettingsError or DiskError.
    """
    beside = _stores_beside(settings, targets)
    begun = next((t.manifest for t in [*targets, *beside] if t.manifest is not None), None)
    recorded = begun.identity if begun else {}
    source = find_source(settings.model, _revision(settings, begun), settings.trust_remote_code)
    attention = settings.attention
    if attention == "auto":
        attention = recorded.get("attention", "auto")
    description = describe(source, attention, settings.sites)
    description.check_tokens(settings.tokens)
    device = choose_device(settings.device, worker.local_rank)
    dtype = recorded.get("dtype", "auto") if settings.dtype == "auto" else settings.dtype
    chosen = choose_batch(settings, description.d, device)
    computing = Computing(
        device=device,
        dtype=choose_dtype(dtype, device),
        attention=description.attention,
        batch_contexts=settings.batch_contexts or recorded.get("batch_contexts") or chosen,
    )
    place = place_of(settings)
    plan = Plan(settings, place, targets, beside, worker, source, description, computing)
    for target in [*targets, *beside]:
        if target.manifest is not None:
            target.refuse_other(computing.identity(), worker)
    if begun is None and worker.is_leader:
        corpus_identity(settings)  # a local one that is not there is missed before any work
    _preflight(plan, on_event)
    return plan


def _revision(settings: ExtractSettings, begun: Manifest | None) -> str | None:
    """The revision asked for, else the commit that the store was begun with: a branch moves."""
    if settings.revision or begun is None or begun.model is None:
        return settings.revision
    return begun.model.revision if begun.model.id == settings.model else None


def _preflight(plan: Plan, on_event: OnEvent) -> None:
    """Refuse what cannot fit, before any work. Raises DiskError, ModelError."""
    settings, description = plan.settings, plan.description
    planned = Manifest(**geometry(settings, description.d), identity={}, software={})
    whole = store_bytes(planned)
    left = sum(int(whole * _share_left(target)) for target in plan.targets)
    if isinstance(plan.place, Path):
        refuse_full_disk(plan.place, left)
    layer = max(site.layer for site in settings.sites)
    what, parameters = "the used blocks", description.parameters(layer)
    settled = all(t.manifest and t.manifest.tokens_complete for t in plan.targets)
    if plan.worker.is_leader and not settled:
        what += " and the whole model, which a self-test compares them with,"
        parameters += description.parameters(description.n_layers - 1)
    refuse_small_memory(
        what,
        parameters,
        plan.computing.dtype,
        plan.computing.device,
        plan.computing.batch_contexts * settings.tokens * description.d,
        _buffer_bytes(plan) if plan.computing.device.type == "cpu" else 0,
    )
    if plan.worker.is_leader:
        each = "" if len(plan.targets) == 1 else f" each of {len(plan.targets)} sites"
        layers = ", ".join(str(layer) for layer in sorted({s.layer for s in settings.sites}))
        on_event(
            Note(
                f"{settings.vectors:,} vectors{each} of {description.name} layer {layers} "
                f"(d = {description.d}): {gigabytes(whole * len(plan.targets))} in {plan.place}"
            )
        )


def _share_left(target: Target) -> float:
    """Of the chunks: how much of a store is yet to be written."""
    if target.manifest is None:
        return 1.0
    writer = StoreWriter(target.home, target.manifest)
    return len(writer.missing(writer.chunks)) / len(writer.chunks)


def _buffer_bytes(plan: Plan) -> int:
    """Main memory of the buffers that rows wait in for the disk."""
    sites = len(plan.targets)
    rows = int(geometry(plan.settings, plan.description.d)["rows_per_chunk"])
    value = NUMPY_DTYPES[plan.settings.store_dtype].itemsize
    return buffer_sets(sites) * sites * rows * plan.description.d * value
