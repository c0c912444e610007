"""Making a store from rows that somebody already has: other models, other tools, vision."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpsae.config.extraction import StoreDtype, held_out_rows
from cpsae.errors import StoreError
from cpsae.store.commit import writer_lock
from cpsae.store.layout import (
    NUMPY_DTYPES,
    HookRecord,
    Manifest,
    Part,
    rows_per_chunk_of_arrays,
)
from cpsae.store.software import software_versions
from cpsae.store.writer import StoreWriter


def write_store(
    path: str | Path,
    activations: npt.NDArray[Any],
    evaluation: npt.NDArray[Any] | None = None,
    *,
    store_dtype: StoreDtype = "bfloat16",
    seed: int = 0,
    layer: int | None = None,
    description: str = "",
) -> Path:
    """Write rows (vectors, d) of any float dtype, in memory or memory-mapped, as a store.

    The rows are shuffled by `seed`. Without `evaluation` rows of your own, a share of them is held
    out by row (the share that `extract` holds out); where neighbouring rows come from one
    document or image, hand in rows of other documents instead.
    Raises StoreError where something is there already or the arrays do not fit;
    NonFiniteError for a NaN or Inf; DiskError where the disk is full.
    """
    path = Path(path)
    _check(path, activations, evaluation)
    order = np.random.default_rng(seed).permutation(len(activations))
    n_held_out = held_out_rows(len(activations)) if evaluation is None else len(evaluation)
    if evaluation is None:
        order, held_out = order[n_held_out:], order[:n_held_out]
        sources = {"training": (activations, order), "evaluation": (activations, held_out)}
    else:
        sources = {
            "training": (activations, order),
            "evaluation": (evaluation, np.arange(len(evaluation))),
        }
    manifest = Manifest(
        origin="arrays",
        identity={"description": description, "seed": seed, "layer": layer},
        vectors=len(order),
        evaluation_vectors=n_held_out,
        d=activations.shape[1],
        rows_per_chunk=rows_per_chunk_of_arrays(activations.shape[1], store_dtype),
        store_dtype=store_dtype,
        seed=seed,
        hook=None if layer is None else HookRecord(layer=layer),
        description=description,
        software=software_versions(),
        tokens_complete=True,
    )
    with writer_lock(path, "store"):
        writer = StoreWriter.create(path, manifest)
        for chunk in writer.chunks:
            source, rows = sources[chunk.part.name]
            writer.write(chunk, _gather(source, rows, chunk.part, chunk.first_row, chunk.n_rows))
        writer.finish()
    return path


def _gather(
    source: npt.NDArray[Any], order: npt.NDArray[np.int64], part: Part, first: int, count: int
) -> npt.NDArray[Any]:
    wanted = order[first : first + count]
    # A memory-mapped file is read in its own order; the shuffle then happens in memory.
    ranks = np.argsort(wanted, kind="stable")
    rows = np.empty((count, part.manifest.d), NUMPY_DTYPES[part.manifest.store_dtype])
    rows[ranks] = source[wanted[ranks]].astype(rows.dtype)
    return rows


def _check(path: Path, activations: npt.NDArray[Any], evaluation: npt.NDArray[Any] | None) -> None:
    if path.exists():
        raise StoreError(f"{path}: is there already; choose another path or move it aside")
    for name, rows in {"activations": activations, "evaluation": evaluation}.items():
        if rows is None:
            continue
        if rows.ndim != 2 or not rows.shape[0] or not rows.shape[1]:
            raise StoreError(f"{name}: expected rows (vectors, d), got shape {rows.shape}")
        if rows.dtype.kind != "f" and rows.dtype.name != "bfloat16":
            raise StoreError(f"{name}: expected a float dtype, got {rows.dtype}")
    if evaluation is not None and evaluation.shape[1] != activations.shape[1]:
        raise StoreError(
            f"evaluation: has d = {evaluation.shape[1]}, activations has {activations.shape[1]}"
        )
