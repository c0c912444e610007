"""The activation store: Zarr v3, chunk files that are also memory-mappable rows.

Importing this package teaches zarr-python the data type `bfloat16`; it does not import torch.
docs/store-format.md is the normative description of the layout.
"""

import cpsae.store.bfloat16  # noqa: F401  zarr must know the type before it meets a store
from cpsae.store.arrays import write_store
from cpsae.store.folders import is_store, stores_in
from cpsae.store.layout import Chunk, Manifest, Part
from cpsae.store.part import StorePart
from cpsae.store.reader import Store, follow_store, open_store
from cpsae.store.verify import Problem, Verification, verify_store
from cpsae.store.writer import StoreWriter

__all__ = [
    "Chunk",
    "Manifest",
    "Part",
    "Problem",
    "Store",
    "StorePart",
    "StoreWriter",
    "Verification",
    "follow_store",
    "is_store",
    "open_store",
    "stores_in",
    "verify_store",
    "write_store",
]
