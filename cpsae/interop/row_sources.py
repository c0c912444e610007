"""Which kind of files rows are in, and their reader."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cpsae.durable import local_folder
from cpsae.errors import SourceError
from cpsae.interop.array_files import read_npy, read_safetensors
from cpsae.interop.cached_activations import STATE, read_cached
from cpsae.interop.pickles import instead_of_pickle
from cpsae.interop.rows import FoundRows


def find_rows(source: str | Path, tensor: str | None = None) -> FoundRows:
    """The rows in a .npy or .safetensors file, in a folder of several of either, or in SAELens'
    cached activations. tensor: its name, where a file holds several, or a column's.

    Raises SourceError where there are none that we know, or they are damaged.
    """
    path = local_folder(source, "source", SourceError)
    if (path / STATE).is_file():
        return read_cached(path, tensor)
    readers: dict[str, Callable[[Sequence[Path], str | None], FoundRows]]
    readers = {".npy": read_npy, ".safetensors": read_safetensors}
    if not path.exists():
        raise SourceError(f"{source}: no such file or folder; check the path")
    for suffix, reader in readers.items():
        files = [path] if path.is_file() else sorted(path.glob(f"*{suffix}"))
        if files and files[0].suffix == suffix:
            return reader(files, tensor)
    if path.suffix in (".pt", ".pth", ".bin", ".pkl"):
        raise SourceError(instead_of_pickle(path, path.with_suffix(".safetensors")))
    raise SourceError(
        f"{source}: expected a .npy or .safetensors file, a folder of such files, or the folder of "
        f"SAELens' cached activations ({STATE} and .arrow files)"
    )
