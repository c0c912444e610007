"""What another program trained, made a run, as one calls it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpsae.config.extraction import POINTS
from cpsae.errors import SettingsError, StoreError
from cpsae.events import Note, OnEvent, ignore
from cpsae.file_content import record_of
from cpsae.interop.exported import free_folder, write_folder
from cpsae.interop.origin import Origin
from cpsae.interop.published import Published
from cpsae.interop.sources import read_published
from cpsae.json_files import as_json_bytes
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.files import autoencoder_files
from cpsae.software import software_versions
from cpsae.stages.evaluate import evaluate
from cpsae.store import Store, open_store
from cpsae.training.run_folder import RunFolder


@dataclass(frozen=True)
class Converted:
    """What became of it."""

    path: Path
    format: str
    what: str
    """As its own program calls it."""
    kind: str
    """As we do."""
    d: int
    n: int
    notes: tuple[str, ...]
    metrics: Mapping[str, Any]
    """On the held-out rows of the store, where one was named."""

    def as_json(self) -> dict[str, Any]:
        """Flat."""
        return {
            "path": str(self.path),
            "format": self.format,
            "what": self.what,
            "kind": self.kind,
            "d": self.d,
            "n_latents": self.n,
            "notes": list(self.notes),
            **self.metrics,
        }


def convert(
    source: str | Path,
    out: str | Path,
    *,
    store: str | os.PathLike[str] | None = None,
    model: str | None = None,
    layer: int | None = None,
    hook: str | None = None,
    scaling_factor: float | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Converted:
    """Make the autoencoder in the folder `source`, of any format in cpsae.interop.SOURCES, the run
    `out`: raw vectors give the reconstructions that they have in its own program.

    store: of its model and layer, on which it is then measured, and which is the run's from then
    on. model, layer, hook: what it is of, where its files do not say it. scaling_factor: what rows
    were multiplied with in its training, where the files say that, but not by how much.
    Raises SourceError where there is none that we know, or no kind of ours is like it; ExportError
    where `out` is taken; StoreError where the store's rows are of another width; DiskError.
    """
    if scaling_factor is not None and not 0 < scaling_factor < float("inf"):
        raise SettingsError(f"--scaling-factor {scaling_factor}: expected a number above 0")
    if hook is not None and hook not in POINTS:
        raise SettingsError(f"--hook {hook}: expected one of {', '.join(POINTS)}")
    folder = free_folder(out)
    point = "resid_post" if hook is None and layer is not None else hook
    found = read_published(
        source, Origin.told(model=model, layer=layer, point=point), scaling_factor
    )
    sae, said = found.autoencoder()
    opened = None if store is None else _fitting(store, sae)
    sae.hook = _hook(found.origin)
    notes = (*found.notes, *said)
    write_folder(folder, _files(source, found, sae, notes, opened))
    for note in notes:
        on_event(Note(note))
    run = RunFolder(out).path
    metrics: Mapping[str, Any] = {}
    if opened is not None and opened.evaluation is not None:
        metrics = evaluate(run, device=device, on_event=on_event).metrics
    return Converted(
        run, found.format, found.what, sae.kind.name, sae.d, sae.n_latents, notes, metrics
    )


def _fitting(store: str | os.PathLike[str], sae: SparseAutoencoder) -> Store:
    opened = open_store(store)
    if opened.d != sae.d:
        raise StoreError(
            f"{store}: its rows have d = {opened.d}, the autoencoder takes {sae.d}; give a "
            "store of the model and layer that it was trained on"
        )
    return opened


def _files(
    source: str | Path,
    found: Published,
    sae: SparseAutoencoder,
    notes: tuple[str, ...],
    store: Store | None,
) -> dict[str, bytes]:
    """Of a run folder."""
    return {
        **autoencoder_files(dict(sae.named_parameters(recurse=False)), sae.description()),
        "config.json": as_json_bytes(_config(source, found, sae, notes, store)),
        "summary.json": as_json_bytes({"n_enabled": sae.n_enabled}),
    }


def _config(
    source: str | Path,
    found: Published,
    sae: SparseAutoencoder,
    notes: tuple[str, ...],
    store: Store | None,
) -> dict[str, Any]:
    kind = sae.kind
    own = {key: getattr(kind.settings, key) for key in kind.inference_settings}
    model = store.manifest.model if store else None
    return {
        "preset": found.format,
        "settings": {
            "kind": kind.name,
            "n_latents": sae.n_latents,
            "normalize": sae.normalizer.name,
            **own,
        },
        "store": None
        if store is None
        else {
            "path": str(store.path.absolute()),
            "identity": store.identity,
            "model": model.id if model else None,
        },
        "source": {
            "format": found.format,
            "what": found.what,
            "path": str(Path(source).expanduser().absolute()),
            "files": [
                record_of(path.name, path).model_dump(include={"name", "bytes", "sha256"})
                for path in found.files
            ],
            "origin": asdict(found.origin),
            "d": sae.d,
            "notes": list(notes),
        },
        "software": software_versions(),
    }


def _hook(origin: Origin) -> dict[str, Any]:
    """As sae.json tells it of every run, what is known."""
    known = {
        "layer": origin.layer,
        "name": origin.point or origin.place,
        "model": origin.model,
        "model_revision": origin.model_revision,
        "tokens": origin.context_size,
        "dataset": origin.dataset,
    }
    return {key: value for key, value in known.items() if value is not None}
