"""Activations that another program left, made a store, as one calls it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsae.config.extraction import POINTS, Point, StoreDtype
from cpsae.errors import SettingsError, SourceError, StoreError
from cpsae.events import Note, OnEvent, ignore
from cpsae.file_content import record_of
from cpsae.held_out import held_out_rows
from cpsae.interop.origin import place_of
from cpsae.interop.row_sources import find_rows
from cpsae.interop.rows import FoundRows, Rows
from cpsae.store import Store, open_store
from cpsae.store.arrays import About, store_rows
from cpsae.store.layout import NUMPY_DTYPES
from cpsae.urls import Place, store_place


@dataclass(frozen=True)
class Imported:
    """What was made."""

    path: Place
    store: Store

    def as_json(self) -> Mapping[str, Any]:
        """Flat."""
        manifest = self.store.manifest
        hook = manifest.hook
        return {
            "store": str(self.path),
            "vectors": manifest.vectors,
            "evaluation_vectors": manifest.evaluation_vectors,
            "d": manifest.d,
            "store_dtype": manifest.store_dtype,
            "layer": hook.layer if hook else None,
            "hook": hook.name if hook else None,
            "description": manifest.description,
        }


def import_rows(
    source: str | Path,
    store: str | os.PathLike[str],
    *,
    tensor: str | None = None,
    evaluation: str | Path | None = None,
    layer: int | None = None,
    hook: Point | None = None,
    model: str | None = None,
    description: str | None = None,
    store_dtype: StoreDtype = "bfloat16",
    drop_first: bool = False,
    seed: int = 0,
    on_event: OnEvent = ignore,
) -> Imported:
    """Make the rows in `source` the store `store`: a .npy or .safetensors file, a folder of several
    of either, or SAELens' cached activations. They are shuffled by `seed`; the last ones, whole
    contexts where they come in such, are held out, or those in `evaluation`. The same call again
    goes on where one was broken off.

    tensor: its name, where a file holds several. layer, hook, model: what they are of, where the
    files do not say it. drop_first: leave out the first position of each context.
    Raises SourceError where there are no such rows, or they are damaged; SettingsError for what
    cannot apply; NonFiniteError where a row holds NaN or Inf, of which nothing is kept;
    DifferentSettingsError where something else is at `store`; DiskError.
    """
    path = store_place(store, "store", StoreError)
    _check(hook, store_dtype)
    found = find_rows(source, tensor)
    place = _place(found, layer, hook)
    rows = _without_first(found.rows, drop_first, source)
    files = list(found.files)
    if evaluation is None:
        training, held_out = _divided(rows, source)
    else:
        others = find_rows(evaluation, tensor)
        files += others.files
        training, held_out = rows, _without_first(others.rows, drop_first, evaluation)
    for note in found.notes:
        on_event(Note(note))
    if found.rows.positions == 1 and evaluation is None:
        on_event(Note("the last rows are held out; give --evaluation rows of other documents"))
    about = About(
        store_dtype=store_dtype,
        seed=seed,
        description=_described(found, model, place, description, source),
        source=_recorded(files, tensor, drop_first, rows),
        **{key: value for key, value in place.items() if value is not None},
    )
    store_rows(path, training, held_out, about, on_event)  # type: ignore[arg-type]  # read as arrays
    return Imported(path, open_store(path))


def _check(hook: str | None, store_dtype: str) -> None:
    if hook is not None and hook not in POINTS:
        raise SettingsError(f"--hook {hook}: expected one of {', '.join(POINTS)}")
    if store_dtype not in NUMPY_DTYPES:
        raise SettingsError(
            f"--store-dtype {store_dtype}: expected one of {', '.join(NUMPY_DTYPES)}"
        )


def _place(found: FoundRows, layer: int | None, hook: Point | None) -> dict[str, Any]:
    """Layer and point: as they are told, else as the files say."""
    said = place_of(found.hook_name)
    if hook is not None and layer is None and said["layer"] is None:
        raise SettingsError(f"--hook {hook}: give --layer too")
    point = hook or (said["point"] if layer in (None, said["layer"]) else None)
    return {"layer": said["layer"] if layer is None else layer, "point": point}


def _without_first(rows: Rows, drop_first: bool, source: str | Path) -> Rows:
    if not drop_first:
        return rows
    if rows.positions < 2:
        raise SettingsError(f"--drop-first: {source} does not say which rows are of one context")
    return Rows(rows.blocks, rows.positions, dropped=1)


def _divided(rows: Rows, source: str | Path) -> tuple[Rows, Rows]:
    """The last share, in whole contexts, is held out: neighbours are often of one document."""
    each = rows.per_context
    count = -(-held_out_rows(len(rows)) // each) * each
    if count >= len(rows):
        raise SourceError(
            f"{source}: {len(rows)} rows cannot be divided into those to train on and those held "
            "out; give --evaluation rows too"
        )
    left = len(rows) - count
    return rows.part(0, left), rows.part(left, count)


def _described(
    found: FoundRows,
    model: str | None,
    place: Mapping[str, Any],
    description: str | None,
    source: str | Path,
) -> str:
    if description is not None:
        return description
    name = model or found.model
    where = None if place["layer"] is None else f"layer {place['layer']}"
    known = [part for part in (name, where, f"imported from {Path(source).name}") if part]
    return ", ".join(known)


def _recorded(
    files: list[Path], tensor: str | None, drop_first: bool, rows: Rows
) -> dict[str, Any]:
    """What the rows are of, by content: the same files elsewhere give the same store."""
    return {
        "files": [
            record_of(file.name, file).model_dump(include={"name", "bytes", "sha256"})
            for file in files
        ],
        "tensor": tensor,
        "positions": rows.positions,
        "drop_first": drop_first,
    }
