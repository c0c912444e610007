"""Checkpoints: tensors in safetensors, the rest in JSON, the folder whole or absent."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cpsae.durable import TEMPORARY_SUFFIX, disk_errors, fsync_folder, make_folders, write_atomic
from cpsae.errors import RunError
from cpsae.json_files import parse_object
from cpsae.tensor_files import (
    CHECKSUM,
    Streamed,
    checksum_of,
    crc32c_of,
    load_tensors,
    write_tensors,
)

_NAME = re.compile(r"step-(\d+)")
_TENSORS = "state.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a run after update `step`."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    """What JSON can hold: settings, feed position, enabled features, temperature, machine."""


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Streamed], state: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder`/step-NNNNNN, tensors block by block, and remove all but the last `keep`.

    Raises DiskError where the disk is full or may not be written; the older ones stay then.
    """
    target = folder / step_name(step)
    temporary = folder / f".{target.name}{TEMPORARY_SUFFIX}"
    with disk_errors(target):
        make_folders(folder)
        remove_unfinished(folder)
        try:
            content = {"step": step, **state}
            content[CHECKSUM] = checksum_of(content, write_tensors(temporary / _TENSORS, tensors))
            text = json.dumps(content, indent=2, allow_nan=False) + "\n"
            write_atomic(temporary / _STATE, text.encode())
            _remove([target])
            temporary.rename(target)
        except BaseException:
            _remove([temporary])
            raise
        fsync_folder(folder)
    keep_last(folder, keep)
    return target


def remove_unfinished(folder: Path) -> None:
    """Remove the folders of steps that a killed writer left half-made, or half-removed."""
    _remove(folder.glob(f".step-*{TEMPORARY_SUFFIX}"))


def keep_last(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the last `keep`. They lose their names first, and durably: one
    that is half removed must not be taken for a checkpoint. Raises DiskError."""
    for path in list_checkpoints(folder)[:-keep]:
        hidden = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
        with disk_errors(path):
            _remove([hidden])
            path.rename(hidden)
            fsync_folder(folder)
            _remove([hidden])
            fsync_folder(folder)  # or a power cut would bring it back, for nobody to remove


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first; anything else in it is left alone."""
    found = {
        int(match[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _NAME.fullmatch(path.name))
    }
    return [path for _, path in sorted(found.items())]


def step_name(step: int) -> str:
    """`step-000500`, as folders and files of a step are called."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step that a folder with such a name is of."""
    return int(folder.name.removeprefix("step-"))


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises RunError where a file of it is missing or broken."""
    try:
        state = parse_object((path / _STATE).read_bytes())
        tensors_file = path / _TENSORS
        if CHECKSUM in state and state[CHECKSUM] != checksum_of(state, crc32c_of(tensors_file)):
            raise ValueError("its checksum does not match its content")
        state.pop(CHECKSUM, None)  # those of earlier versions have none
        tensors = load_tensors(tensors_file)
        return Checkpoint(int(state.pop("step")), tensors, state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise unusable(path, "is no readable checkpoint", error) from None


def unusable(path: Path, how: str, error: Exception) -> RunError:
    """The error for a checkpoint that cannot be continued from."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RunError(
        f"{path}: {how} ({reason}); remove this folder to continue from the one before, or use "
        "--fresh"
    )
