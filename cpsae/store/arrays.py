"""Making a store from rows that somebody already has: other models, other tools, vision."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpsae.config.extraction import StoreDtype
from cpsae.durable import LOCK_NAME, local_folder, writer_lock
from cpsae.errors import NonFiniteError, StoreError
from cpsae.held_out import held_out_rows
from cpsae.software import software_versions
from cpsae.store.layout import (
    NUMPY_DTYPES,
    Chunk,
    HookRecord,
    Manifest,
    rows_per_chunk_of_arrays,
)
from cpsae.store.spool import spooled
from cpsae.store.statistics import as_float32
from cpsae.store.writer import StoreWriter


def write_store(
    path: str | os.PathLike[str],
    activations: Any,
    evaluation: Any = None,
    *,
    store_dtype: StoreDtype = "bfloat16",
    seed: int = 0,
    layer: int | None = None,
    description: str = "",
) -> Path:
    """Write rows (vectors, d) of any float dtype as a store: a numpy array, in memory or
    memory-mapped, a torch tensor on any device, lists, or an iterator of blocks, each of them rows
    (some, d) of one dtype. Blocks are kept in a nameless file beside the store until all are there.

    The rows are shuffled by `seed`. Without `evaluation` rows of your own, a share of them is held
    out by row (the share that `extract` holds out); where neighbouring rows come from one
    document or image, hand in rows of other documents instead. All or nothing: where it fails,
    what was written is removed again.
    Raises StoreError where something is there already or the arrays do not fit;
    NonFiniteError for a NaN or Inf; DiskError where the disk is full.
    """
    path = local_folder(path, "store", StoreError)
    with ExitStack() as stack:
        _refuse_existing(path)
        rows = {
            name: stack.enter_context(spooled(name, given, path, _rows_of))
            if isinstance(given, Iterator)
            else _rows_of(name, given)
            for name, given in {"activations": activations, "evaluation": evaluation}.items()
            if name == "activations" or given is not None
        }
        _store(
            path, rows["activations"], rows.get("evaluation"), store_dtype, seed, layer, description
        )
    return path


def _store(
    path: Path,
    activations: npt.NDArray[Any],
    evaluation: npt.NDArray[Any] | None,
    store_dtype: StoreDtype,
    seed: int,
    layer: int | None,
    description: str,
) -> None:
    _check(activations, evaluation, store_dtype)
    d = activations.shape[1]
    order = np.random.default_rng(seed).permutation(len(activations))
    if evaluation is None:
        n_held_out = held_out_rows(len(activations))
        held_out = _Source("activations", activations, order[:n_held_out])
        order = order[n_held_out:]
    else:
        held_out = _Source("evaluation", evaluation, np.arange(len(evaluation)))
    sources = {"training": _Source("activations", activations, order), "evaluation": held_out}
    all_in_one = 1 << (len(order) - 1).bit_length()  # a larger chunk would be zeros for the rest
    manifest = Manifest(
        origin="arrays",
        identity={"description": description, "seed": seed, "layer": layer},
        vectors=len(order),
        evaluation_vectors=len(held_out.order),
        d=d,
        rows_per_chunk=min(rows_per_chunk_of_arrays(d, store_dtype), all_in_one),
        store_dtype=store_dtype,
        seed=seed,
        hook=None if layer is None else HookRecord(layer=layer),
        description=description,
        software=software_versions(),
        tokens_complete=True,
    )
    _refuse_existing(path)
    with writer_lock(path, "store"):
        _refuse_existing(path)  # made by another process since we looked
        try:
            _write(StoreWriter.create(path, manifest), sources)
        except BaseException:
            _remove_all(path)
            raise


class _Source(NamedTuple):
    """Rows that somebody has, by the name of their argument, and the order to store them in."""

    name: str
    rows: npt.NDArray[Any]
    order: npt.NDArray[np.int64]

    def wanted(self, chunk: Chunk) -> npt.NDArray[np.int64]:
        """The numbers of the rows that go into a chunk."""
        return self.order[chunk.first_row : chunk.first_row + chunk.n_rows]

    def gather(self, chunk: Chunk) -> npt.NDArray[Any]:
        """The rows of a chunk in the store's dtype."""
        wanted = self.wanted(chunk)
        # A memory-mapped file is read in its own order; the shuffle then happens in memory.
        ranks = np.argsort(wanted, kind="stable")
        rows = np.empty((chunk.n_rows, self.rows.shape[1]), _dtype_of(chunk))
        with np.errstate(over="ignore", invalid="ignore"):  # the writer looks, and says it in words
            rows[ranks] = self.rows[wanted[ranks]].astype(rows.dtype)
        return rows

    def blame(self, chunk: Chunk, rows: npt.NDArray[Any]) -> str:
        """What to say of a gathered chunk that is not finite: the row as its owner counts it."""
        bad = self.wanted(chunk)[~np.isfinite(as_float32(rows)).all(axis=1)]
        if not bad.size:
            return f"{self.name}: a row's norm is beyond float32; scale the rows down"
        row = int(bad.min())
        if np.isfinite(self.rows[row].astype(np.float64)).all():
            return (
                f"{self.name}: row {row} has values too large for {rows.dtype}; "
                "take another store_dtype"
            )
        return f"{self.name}: row {row} holds NaN or Inf; leave such rows out"


def _dtype_of(chunk: Chunk) -> np.dtype[Any]:
    return NUMPY_DTYPES[chunk.part.manifest.store_dtype]


def _write(writer: StoreWriter, sources: dict[str, _Source]) -> None:
    for chunk in writer.chunks:
        source = sources[chunk.part.name]
        rows = source.gather(chunk)
        try:
            writer.write(chunk, rows)
        except NonFiniteError:
            raise NonFiniteError(source.blame(chunk, rows)) from None
    writer.finish()


def _refuse_existing(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(e.name != LOCK_NAME for e in path.iterdir())):
        raise StoreError(f"{path}: is there already; choose another path or move it aside")


def _remove_all(path: Path) -> None:
    """All but the lock, which its holder removes, and the folder with it if it was made here."""
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK_NAME:
            entry.unlink()


def _rows_of(name: str, rows: Any) -> npt.NDArray[Any]:
    """What somebody handed in as a plain array, copied only from a GPU or out of lists. Raises
    StoreError where it is none, or a value of it is masked."""
    torch = sys.modules.get("torch")  # who hands in a tensor has it; a store does without
    if torch is not None and isinstance(rows, torch.Tensor):
        from cpsae.tensors import array_of

        if rows.layout != torch.strided:
            raise StoreError(f"{name}: is a sparse tensor; hand in its to_dense()")
        plain = rows.detach().cpu().resolve_conj().resolve_neg()
        return array_of(plain) if plain.dtype == torch.bfloat16 else plain.numpy()
    masked = int(np.ma.getmaskarray(rows).sum()) if isinstance(rows, np.ma.MaskedArray) else 0
    if masked:
        raise StoreError(
            f"{name}: {masked} of {rows.size} values are masked; leave such rows out, or fill them"
        )
    if not isinstance(rows, np.ndarray | list | tuple) and hasattr(rows, "dtype"):
        return rows  # type: ignore[no-any-return]  # read piece by piece, as files of other libraries are
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise StoreError(f"{name}: expected rows (vectors, d) of one length ({error})") from None


def _check(
    activations: npt.NDArray[Any], evaluation: npt.NDArray[Any] | None, store_dtype: str
) -> None:
    if store_dtype not in NUMPY_DTYPES:
        raise StoreError(f"store_dtype {store_dtype!r}: expected one of {', '.join(NUMPY_DTYPES)}")
    for name, rows in {"activations": activations, "evaluation": evaluation}.items():
        if rows is None:
            continue
        if rows.ndim != 2 or not rows.shape[0] or not rows.shape[1]:
            raise StoreError(f"{name}: expected rows (vectors, d), got shape {rows.shape}")
        if rows.dtype.kind != "f" and rows.dtype.name != "bfloat16":
            raise StoreError(f"{name}: expected a float dtype, got {rows.dtype}")
    if evaluation is None and len(activations) < 2:
        raise StoreError("activations: one row cannot be split; hand in evaluation rows too")
    if evaluation is not None and evaluation.shape[1] != activations.shape[1]:
        raise StoreError(
            f"evaluation: has d = {evaluation.shape[1]}, activations has {activations.shape[1]}"
        )
