"""Checkpoints: tensors in safetensors, the rest in JSON, the folder whole or absent."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cpsae.errors import RunError
from cpsae.store.commit import disk_errors, fsync_folder, make_folders, write_atomic

_TENSORS = "state.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a run after update `step`."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    """What JSON can hold: feed position, enabled features, temperature, seconds, machine."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder`/step-NNNNNN and remove all but the last `keep`."""
    target = folder / f"step-{checkpoint.step:06d}"
    temporary = folder / f".{target.name}.tmp"
    with disk_errors(target):
        make_folders(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            contiguous = {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in checkpoint.tensors.items()
            }
            write_atomic(temporary / _TENSORS, save(contiguous))
            state = {"step": checkpoint.step, **checkpoint.state}
            write_atomic(temporary / _STATE, (json.dumps(state, indent=2) + "\n").encode())
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        fsync_folder(folder)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    found = folder.glob("step-*") if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises RunError where a file of it is missing or broken."""
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        tensors = load((path / _TENSORS).read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            f"{path}: is no readable checkpoint ({error}); remove this folder to continue from "
            "the one before, or use --fresh"
        ) from None
    return Checkpoint(state.pop("step"), tensors, state)
