"""`provenance.json` in a store: the files that its rows came from, text and model, with what shows
whether they are still the same. It stands beside the manifest, and a store can do without it."""

from pydantic import ValidationError

from cpsae.errors import StoreError
from cpsae.origins import Provenance
from cpsae.store.bucket import Bucket

KEY = "provenance.json"


def read_provenance(bucket: Bucket) -> Provenance | None:
    """What is known of a store's origin; None for a store of an earlier version. Raises StoreError
    where it is damaged."""
    try:
        data = bytes(bucket.read(KEY))
    except FileNotFoundError:
        return None
    try:
        return Provenance.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(
            f"{bucket.name}: its {KEY} is damaged, or of a later version of cpsae; remove that "
            "file to go on without knowing whether text and model are still the same"
        ) from error


def write_provenance(bucket: Bucket, provenance: Provenance) -> None:
    """Whole or not at all. Raises DiskError."""
    bucket.write(KEY, provenance.model_dump_json(indent=1).encode())
