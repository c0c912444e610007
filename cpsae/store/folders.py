"""From the path that a user names to a store, or to the stores of several sites side by side."""

import os
import re
from pathlib import Path
from typing import cast

from cpsae.config.extraction import POINTS, Point, Site
from cpsae.errors import StoreError
from cpsae.store.bucket import Folder, Home
from cpsae.store.metadata import ROOT
from cpsae.urls import Place, store_place

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


def home_at(place: Place, cached: bool = True) -> Home:
    """The bucket at a place, whatever is there. cached: keep copies of what is read from a URL.
    Raises RemoteError where a URL cannot be used."""
    if isinstance(place, Path):
        return Folder(place)
    from cpsae.store.remote.address import open_url

    return open_url(place, cached)


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether there is a store (finished or not, of any format) at `path`."""
    place = store_place(path, "store", StoreError)
    if isinstance(place, Path):
        return (place / ROOT).is_file()
    return holds_store(home_at(place))


def holds_store(home: Home) -> bool:
    """`is_store` of a bucket."""
    return bool(home.sizes([ROOT]))


def stores_in(path: str | os.PathLike[str]) -> list[Place]:
    """The stores in a folder of stores, by layer and then by place in the block; none where `path`
    is a store itself, or anything else."""
    place = store_place(path, "store", StoreError)
    home = home_at(place)
    if holds_store(home):
        return []
    found = {match: name for name in home.folders() if (match := _SITE.fullmatch(name))}
    ordered = sorted(found, key=lambda match: (int(match[1]), POINTS.index(match[2])))
    return [place / found[match] for match in ordered if is_store(place / found[match])]


def find_bucket(path: str | os.PathLike[str], cached: bool = True) -> Home:
    """The bucket of the store at `path`; cached: as `home_at` has it. Raises StoreError where there
    is no such folder, or it is a folder of stores, whose names the text lists."""
    place = store_place(path, "store", StoreError)
    if isinstance(place, Path) and not place.is_dir():
        raise StoreError(f"{path}: no such store; give the folder that `cpsae extract` wrote")
    stores = stores_in(place)
    if stores:
        names = ", ".join(store.name for store in stores)
        raise StoreError(f"{place}: is a folder of stores; name one of them: {names}")
    return home_at(place, cached)
