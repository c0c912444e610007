"""Making a damaged store whole, or one that an extraction can complete."""

import os
from collections.abc import Sequence

from cpsae.errors import StoreError
from cpsae.store.bucket import Bucket
from cpsae.store.folders import find_bucket
from cpsae.store.layout import Manifest
from cpsae.store.metadata import (
    CONTRADICTION,
    ROOT,
    document_keys,
    document_problems,
    read_manifest,
    write_document,
)
from cpsae.store.writer import StoreWriter


def remove_damaged(path: str | os.PathLike[str], keys: Sequence[str]) -> list[str]:
    """Remove the objects `keys`; returns those that were there.

    Documents of arrays follow from the manifest, and statistics from their chunk: these are made
    again at once. Where a chunk is gone, so is the completion mark, and an extraction makes it.
    Raises StoreError, and touches nothing, where `why_not` gives a reason.
    """
    bucket = find_bucket(path, cached=False)
    read_manifest(bucket)  # no lock file in a folder that is no store
    with bucket.lock("store"):
        manifest = read_manifest(bucket)
        documents = [key for key in keys if key in document_keys(manifest)]
        others = [key for key in keys if key not in documents]
        reason = _why_not(bucket, keys)
        if reason is not None:
            raise StoreError(f"{bucket.name}: {reason}")
        present = list(bucket.sizes(keys))
        for key in documents:
            write_document(bucket, manifest, key)
        if others:
            writer = StoreWriter(bucket, manifest)
            writer.discard(others)
            writer.tidy()
            # An earlier repair may have been killed between the two marks.
            was_complete = manifest.complete or manifest.origin == "arrays"
            if was_complete and not writer.missing():
                writer.finish()
    return present


def why_not(path: str | os.PathLike[str], keys: Sequence[str]) -> str | None:
    """Why the damaged objects `keys` cannot be repaired, and what to do instead; None where they
    can.

    A manifest that other documents contradict may be what is wrong, and then every chunk looks
    damaged that is not: nothing may be removed on its word. Tokens, and the rows of a store made
    from arrays, follow from nothing else in the store.
    """
    return _why_not(find_bucket(path, cached=False), keys)


def _why_not(bucket: Bucket, keys: Sequence[str]) -> str | None:
    manifest = read_manifest(bucket)
    others = [key for key, what in document_problems(bucket, manifest) if what == CONTRADICTION]
    if others:
        return (
            f"{ROOT} and {others[0]} contradict each other, so nothing is removed; restore "
            f"{ROOT} from a copy, or, where it is the right one, remove the other and repair again"
        )
    lost = [key for key in keys if _cannot_be_made_again(manifest, key)]
    return f"{lost[0]} cannot be computed again; restore it from a copy" if lost else None


def _cannot_be_made_again(manifest: Manifest, key: str) -> bool:
    return "tokens/c/" in key or (manifest.origin == "arrays" and "activations/c/" in key)
