"""Which format a folder is in, and its reader."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from cpsae.durable import local_folder
from cpsae.errors import SourceError
from cpsae.interop import SOURCES
from cpsae.interop.origin import Origin
from cpsae.interop.published import Published

_DEEP, _NAMED = 5, 3


def read_published(
    source: str | Path, told: Origin, scaling_factor: float | None = None
) -> Published:
    """The autoencoder in a folder of any format in SOURCES; a file of it stands for the folder.

    told: what the caller knows of it, which comes before what its files say. scaling_factor: what
    rows were multiplied with in its training, where the files say that, but not by how much.
    Raises SourceError where there is none, it is damaged, or no kind of ours is like it.
    """
    path = local_folder(source, "autoencoder", SourceError)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise SourceError(f"{source}: no such folder{_how_to_fetch(str(source))}")
    for name in SOURCES:
        module = _module(name)
        if _is_in(folder, module):
            found: Published = module.read(folder, told, scaling_factor)
            return found
    below = [str(found) for found in _below(folder)]
    if below:
        more = ", and more" if len(below) > _NAMED else ""
        raise SourceError(
            f"{source}: is none itself; name one of those in it, like {', '.join(below[:_NAMED])}"
            f"{more}"
        )
    known = "; ".join(
        f"{name}: {' or '.join(' and '.join(files) for files in _module(name).FILES)}"
        for name in SOURCES
    )
    raise SourceError(f"{source}: holds no autoencoder in a format that is known ({known})")


def _module(name: str) -> ModuleType:
    return import_module(SOURCES[name])


def _is_in(folder: Path, module: ModuleType) -> bool:
    return any(all((folder / file).is_file() for file in files) for files in module.FILES)


def _below(folder: Path) -> Iterator[Path]:
    """Folders in it that hold one."""
    modules = [_module(name) for name in SOURCES]
    for parent, folders, _ in os.walk(folder):
        here = Path(parent)
        deep = len(here.relative_to(folder).parts)
        folders[:] = sorted(folders) if deep < _DEEP else []
        if any(_is_in(here, module) for module in modules):
            yield here


def _how_to_fetch(source: str) -> str:
    """For who gives the name of a repository, or of a folder in one."""
    parts = source.split("/")
    if len(parts) < 2 or source[0] in "./~" or not all(parts):
        return "; give the folder of an autoencoder on this machine"
    what = f" --include '{'/'.join(parts[2:])}/*'" if len(parts) > 2 else ""
    return (
        f"; of the hub it is first fetched: `hf download {'/'.join(parts[:2])}{what}`, and the "
        "folder that this prints is given here"
    )
