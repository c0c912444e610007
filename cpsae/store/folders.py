"""From the path that a user names to a store, or to the stores of several sites side by side."""

import os
import re
from pathlib import Path
from typing import cast

from cpsae.config.extraction import POINTS, Point, Site
from cpsae.durable import local_folder
from cpsae.errors import StoreError
from cpsae.store.bucket import Folder
from cpsae.store.metadata import ROOT

_SITE = re.compile(rf"(\d+)\.({'|'.join(POINTS)})\.zarr")


def site_folder(layer: int, point: str) -> str:
    """The name of a site's store in a folder of stores."""
    return f"{layer}.{point}.zarr"


def site_of(name: str) -> Site:
    """The site whose store is called `name` in a folder of stores."""
    match = _SITE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: not the name of a site's store")
    return Site(int(match[1]), cast(Point, match[2]))


def names_site(name: str) -> bool:
    """Whether a folder of this name may be a site's store, or one that was renamed aside."""
    return _SITE.fullmatch(name.partition(".old-")[0]) is not None


def is_store(path: str | Path) -> bool:
    """Whether there is a store (finished or not, of any format) at `path`."""
    return (Path(path) / ROOT).is_file()


def stores_in(path: str | Path) -> list[Path]:
    """The stores in a folder of stores, by layer and then by place in the block; none where `path`
    is a store itself, or anything else."""
    folder = Path(path)
    if is_store(folder) or not folder.is_dir():
        return []
    found = {match: entry for entry in folder.iterdir() if (match := _SITE.fullmatch(entry.name))}
    ordered = sorted(found, key=lambda match: (int(match[1]), POINTS.index(match[2])))
    return [found[match] for match in ordered if is_store(found[match])]


def find_bucket(path: str | os.PathLike[str]) -> Folder:
    """The bucket of the store at `path`. Raises StoreError where there is no such folder, or it is
    a folder of stores, whose names the text lists."""
    path = os.fspath(path)
    folder = local_folder(path, "store", StoreError)
    if not folder.is_dir():
        raise StoreError(f"{path}: no such store; give the folder that `cpsae extract` wrote")
    stores = stores_in(folder)
    if stores:
        names = ", ".join(store.name for store in stores)
        raise StoreError(f"{path}: is a folder of stores; name one of them: {names}")
    return Folder(folder)
