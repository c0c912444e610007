"""What an export comes to, and how it reaches the disk: a folder, whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cpsae.durable import (
    TEMPORARY_SUFFIX,
    disk_errors,
    fsync_folder,
    local_folder,
    make_folders,
    write_atomic,
)
from cpsae.errors import ExportError


@dataclass(frozen=True)
class Files:
    """A format's files of one autoencoder."""

    contents: Mapping[str, bytes]
    """By name."""
    what: str
    """What the target takes it for: its class or architecture."""
    d: int
    n: int
    """Latents: the enabled features."""
    latent_scale: float
    """Latents are this many times those of `cpsae.load(run).encode`."""
    load: str
    """The line of Python that loads it; {folder} stands for the folder."""
    notes: tuple[str, ...] = ()


def on_disk(load: str, folder: str) -> str:
    """`Files.load` where the folder is what the expression `folder` gives."""
    return load.replace('"{folder}"', folder).replace('"{folder}/', f'{folder} + "/')


def free_folder(out: str | os.PathLike[str]) -> Path:
    """`out` as a folder that an export can become: absent, or empty; a link's target. Raises
    ExportError elsewhere."""
    folder = local_folder(out, "--out", ExportError).resolve()
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ExportError(f"{out}: is a file; give --out a folder that is not there yet")
        if folder.is_dir() and any(folder.iterdir()):
            raise ExportError(
                f"{out}: is there already and is not empty; give --out another folder, or move "
                "this one aside"
            )
    return folder


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files, by their names, as `folder`, which `free_folder` gave: into a temporary one
    beside it, which then takes its place. Raises DiskError where the disk is full or may not be
    written, ExportError where something came into the folder meanwhile; nothing is left then."""
    name = f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    temporary = folder.parent / name
    with disk_errors(folder):
        make_folders(folder.parent)
        try:
            temporary.mkdir()
            for file, content in files.items():
                write_atomic(temporary / file, content)
            free_folder(folder)
            if folder.is_dir():
                folder.rmdir()  # it is empty
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_folder(folder.parent)
