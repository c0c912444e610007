"""Making a damaged store one that an extraction can complete: what is damaged is removed."""

from collections.abc import Sequence
from pathlib import Path

from cpsae.errors import StoreError
from cpsae.store.commit import writer_lock
from cpsae.store.documents import read_manifest
from cpsae.store.writer import StoreWriter


def remove_damaged(path: Path, keys: Sequence[str]) -> list[str]:
    """Remove the files `keys` (paths in the store) and the completion mark; what was removed.

    Damaged statistics are removed alone: they are computed again from their chunk. Raises
    StoreError where nothing could make the files again: a store made from arrays, or its tokens.
    """
    manifest = read_manifest(path)
    tokens = [key for key in keys if "tokens/c/" in key]
    if manifest.origin == "arrays" or tokens:
        what = tokens[0] if tokens else keys[0]
        raise StoreError(f"{path}: {what} cannot be computed again; restore it from a copy")
    with writer_lock(path, "store"):
        present = [key for key in keys if (path / key).exists()]
        StoreWriter(path, manifest).discard(keys)
    return present
