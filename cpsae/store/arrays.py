"""Making a store from rows that somebody already has: other models, other tools, vision."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpsae.config.extraction import Point, StoreDtype
from cpsae.config.resolve import differences
from cpsae.errors import (
    BusyError,
    CpsaeError,
    DifferentSettingsError,
    DiskError,
    NonFiniteError,
    RemoteError,
    StoreError,
)
from cpsae.events import Advanced, Finished, Note, OnEvent, Started, ignore
from cpsae.held_out import held_out_rows
from cpsae.software import software_versions
from cpsae.store.bucket import Home
from cpsae.store.folders import holds_store, home_at
from cpsae.store.layout import (
    NUMPY_DTYPES,
    Chunk,
    HookRecord,
    Manifest,
    rows_per_chunk_of_arrays,
)
from cpsae.store.metadata import read_manifest, write_skeleton
from cpsae.store.spool import spooled
from cpsae.store.statistics import as_float32
from cpsae.store.writer import StoreWriter
from cpsae.urls import Place, store_place


def write_store(
    path: str | os.PathLike[str],
    activations: Any,
    evaluation: Any = None,
    *,
    store_dtype: StoreDtype = "bfloat16",
    seed: int = 0,
    layer: int | None = None,
    description: str = "",
) -> Place:
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
    place = store_place(path, "store", StoreError)
    with ExitStack() as stack:
        _refuse_existing(home_at(place))
        rows = {
            name: stack.enter_context(spooled(name, given, place, _rows_of))
            if isinstance(given, Iterator)
            else _rows_of(name, given)
            for name, given in {"activations": activations, "evaluation": evaluation}.items()
            if name == "activations" or given is not None
        }
        about = About(store_dtype, seed, layer, description=description)
        store_rows(place, rows["activations"], rows.get("evaluation"), about)
    return place


class About(NamedTuple):
    """How rows are stored, and what is known of them."""

    store_dtype: StoreDtype = "bfloat16"
    seed: int = 0
    layer: int | None = None
    point: Point = "resid_post"
    description: str = ""
    source: Mapping[str, Any] | None = None
    """Which files they are from: they can be written on with where an earlier call got to."""


def store_rows(
    place: Place,
    activations: npt.NDArray[Any],
    evaluation: npt.NDArray[Any] | None,
    about: About,
    on_event: OnEvent = ignore,
) -> None:
    """`write_store` of arrays, or of what reads like them. Where `about.source` is given, a call
    that was broken off is gone on with, and what it has written stays; a store that is complete is
    left as it is. Raises what `write_store` raises, and DifferentSettingsError where the store was
    begun from something else."""
    _check(activations, evaluation, about.store_dtype)
    order = np.random.default_rng(about.seed).permutation(len(activations))
    if evaluation is None:
        n_held_out = held_out_rows(len(activations))
        held_out = _Source("activations", activations, order[:n_held_out])
        order = order[n_held_out:]
    else:
        held_out = _Source("evaluation", evaluation, np.arange(len(evaluation)))
    sources = {"training": _Source("activations", activations, order), "evaluation": held_out}
    manifest = _manifest(activations.shape[1], len(order), len(held_out.order), about)
    goes_on = about.source is not None
    home = home_at(place)
    if not goes_on:
        _refuse_existing(home)
    with home.lock("store"):
        begun = _begun(home, manifest) if goes_on else None
        if begun is None:
            _refuse_existing(home)  # made by another process since we looked
        try:
            _write(begun or StoreWriter.create(home, manifest), sources, on_event)
        except BaseException as error:
            if _is_to_be_removed(error, goes_on):
                with suppress(RemoteError):  # what went wrong first is what is told
                    home.clear()
            raise


def _is_to_be_removed(error: BaseException, goes_on: bool) -> bool:
    """Whether nothing stays of what was written; of a store that another process took over since,
    all does."""
    if isinstance(error, BusyError):
        return False
    wrong = isinstance(error, CpsaeError) and not isinstance(error, DiskError | RemoteError)
    return wrong or not goes_on


def _manifest(d: int, vectors: int, evaluation_vectors: int, about: About) -> Manifest:
    all_in_one = 1 << (vectors - 1).bit_length()  # a larger chunk would be zeros for the rest
    identity = {"description": about.description, "seed": about.seed, "layer": about.layer}
    if about.point != "resid_post":
        identity["hook"] = about.point
    if about.source is not None:
        identity["source"] = dict(about.source)
    layer = about.layer
    return Manifest(
        origin="arrays",
        identity=identity,
        vectors=vectors,
        evaluation_vectors=evaluation_vectors,
        d=d,
        rows_per_chunk=min(rows_per_chunk_of_arrays(d, about.store_dtype), all_in_one),
        store_dtype=about.store_dtype,
        seed=about.seed,
        hook=None if layer is None else HookRecord(layer=layer, name=about.point),
        description=about.description,
        software=software_versions(),
        tokens_complete=True,
    )


def _begun(home: Home, manifest: Manifest) -> StoreWriter | None:
    """The writer of the store that is there, if any. Raises DifferentSettingsError where it is
    another one."""
    if not holds_store(home):
        return None
    there = read_manifest(home)
    marks = {"software", "complete"}
    old, new = (m.model_dump(mode="json", exclude=marks) for m in (there, manifest))
    different = differences(old, new)
    if different:
        raise DifferentSettingsError(
            f"{home.name}: is there already, made in another way ({'; '.join(different)}); choose "
            "another path or move it aside",
            different,
        )
    return StoreWriter(home, there)


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


def _write(writer: StoreWriter, sources: dict[str, _Source], on_event: OnEvent) -> None:
    if writer.manifest.complete:
        on_event(Note(f"{writer.bucket.name} is complete"))
        return
    write_skeleton(writer.bucket, writer.manifest)  # killed while it was begun, it may lack some
    writer.tidy()
    missing = writer.missing()
    total = sum(chunk.n_rows for chunk in writer.chunks)
    done = total - sum(chunk.n_rows for chunk in missing)
    on_event(Started("write", total, "row", done))
    for chunk in missing:
        source = sources[chunk.part.name]
        rows = source.gather(chunk)
        try:
            writer.write(chunk, rows)
        except NonFiniteError:
            raise NonFiniteError(source.blame(chunk, rows)) from None
        done += chunk.n_rows
        on_event(Advanced(done))
    writer.finish()
    on_event(Finished())


def _refuse_existing(home: Home) -> None:
    if home.is_occupied():
        raise StoreError(f"{home.name}: is there already; choose another path or move it aside")


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
