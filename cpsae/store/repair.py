"""Making a damaged store whole, or one that an extraction can complete."""

from collections.abc import Sequence
from pathlib import Path

from cpsae.durable import writer_lock
from cpsae.errors import StoreError
from cpsae.store.documents import document_keys, read_manifest, write_document
from cpsae.store.layout import Manifest
from cpsae.store.writer import StoreWriter


def remove_damaged(path: Path, keys: Sequence[str]) -> list[str]:
    """Remove the files `keys` (paths in the store); returns those that were there.

    Documents of arrays follow from the manifest, and statistics from their chunk: these are made
    again at once. Where a chunk is gone, so is the completion mark, and an extraction makes it.
    Raises StoreError, and touches nothing, where nothing could make the files again: the rows of
    a store made from arrays, or any tokens.
    """
    read_manifest(path)  # no lock file in a folder that is no store
    with writer_lock(path, "store"):
        manifest = read_manifest(path)
        documents = [key for key in keys if key in document_keys(manifest)]
        others = [key for key in keys if key not in documents]
        lost = [key for key in others if _cannot_be_made_again(manifest, key)]
        if lost:
            raise StoreError(f"{path}: {lost[0]} cannot be computed again; restore it from a copy")
        present = [key for key in keys if (path / key).exists()]
        for key in documents:
            write_document(path, manifest, key)
        if others:
            writer = StoreWriter(path, manifest)
            writer.discard(others)
            writer.tidy()
            # An earlier repair may have been killed between the two marks.
            was_complete = manifest.complete or manifest.origin == "arrays"
            if was_complete and not writer.missing():
                writer.finish()
    return present


def _cannot_be_made_again(manifest: Manifest, key: str) -> bool:
    return "tokens/c/" in key or (manifest.origin == "arrays" and "activations/c/" in key)
