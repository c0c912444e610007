"""Refusing, before any work, what cannot fit."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cpsae.device import free_memory, is_out_of_memory
from cpsae.errors import DiskError, ModelError
from cpsae.memory import gigabytes
from cpsae.store.layout import CRC_BYTES, NUMPY_DTYPES, Manifest
from cpsae.tensors import dtype_name

_MARGIN_BYTES = 64 * 2**20
_BATCH_COPIES = 6
"""Hidden-state-sized tensors that a block holds at once, roughly (its MLP is several times d)."""


def store_bytes(manifest: Manifest) -> int:
    """Bytes of all chunk files of a store, tokens counted without their compression."""
    total = 0
    for part in manifest.parts():
        for spec in part.arrays():
            if spec.name.endswith("activations"):
                value = NUMPY_DTYPES[manifest.store_dtype].itemsize
                row = manifest.d * value
                total += part.n_chunks * (manifest.rows_per_chunk * row + CRC_BYTES)
            elif spec.name.endswith("norms"):
                total += part.n_chunks * manifest.rows_per_chunk * 4
            elif spec.name.endswith("summary"):
                total += part.n_chunks * (manifest.d + 2) * 8
            elif spec.name.endswith("tokens"):
                total += spec.shape[0] * spec.shape[1] * 4
    return total


def refuse_full_disk(path: Path, wanted: int) -> None:
    """Raises DiskError where the disk of `path` has less than `wanted` bytes free."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if wanted and wanted + _MARGIN_BYTES > free:
        raise DiskError(
            f"{path}: the store takes {gigabytes(wanted)} more and {gigabytes(_MARGIN_BYTES)} stay "
            f"free, the disk has {gigabytes(free)} free; choose another --store or fewer --vectors"
        )


def refuse_small_memory(
    what: str,
    parameters: int,
    dtype: torch.dtype,
    device: torch.device,
    batch_values: int,
    buffers: int = 0,
) -> None:
    """Raises ModelError where the weights of `what`, one batch of hidden states and `buffers` bytes
    exceed the free memory."""
    wanted = parameters * dtype.itemsize + _BATCH_COPIES * batch_values * dtype.itemsize + buffers
    free = free_memory(device)
    if free is not None and wanted > free.bytes:
        under = f" under {free.limit}" if free.limit else ""
        instead = "raise that limit" if free.limit else "take another --device"
        raise ModelError(
            f"{what} need about {gigabytes(wanted)} of memory in "
            f"{dtype_name(dtype)}, {device} has {gigabytes(free.bytes)} free{under}; use a "
            f"smaller --batch-contexts or --dtype bfloat16, or {instead}"
        )


@contextmanager
def memory_errors(name: str, device: torch.device) -> Iterator[None]:
    """Turn torch's refusal of memory while the model `name` runs into a ModelError."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"model {name}: a batch does not fit the memory of {device}; use a smaller "
            "--batch-contexts (with --fresh, where the store was begun with another), or "
            "--dtype bfloat16"
        ) from error
