"""An autoencoder's two files: sae.safetensors (weights) and sae.json (what inference needs beside).

Nothing here unpickles: a run folder from a stranger can be opened.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cpsae.durable import write_atomic
from cpsae.errors import RunError, SettingsError
from cpsae.sae.kind import Kind
from cpsae.sae.kinds import load_kind

WEIGHTS = "sae.safetensors"
DESCRIPTION = "sae.json"
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")


@dataclass(frozen=True)
class SavedRun:
    """The contents of both files."""

    folder: Path
    weights: dict[str, Tensor]
    description: dict[str, Any]

    def kind(self) -> Kind:
        """The activation rule, for inference. RunError where this cpsae has no such kind."""
        try:
            kind = load_kind(str(self.description["kind"]))
        except SettingsError as error:
            raise RunError(
                f"{self.folder / DESCRIPTION}: {error}; was it trained by a newer cpsae?"
            ) from None
        return kind.from_constants(self.description)

    def check(self, **sizes: int) -> None:
        """ValueError where sae.json names other sizes than the weights have."""
        for key, size in sizes.items():
            if self.description[key] != size:
                raise ValueError(f"{key} is {self.description[key]!r}, but the weights have {size}")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what malformed or contradictory values cause into one RunError."""
        try:
            yield
        except KeyError as error:
            raise RunError(
                f"{self.folder / DESCRIPTION}: has no {error}; fit the run again, or restore the "
                "file"
            ) from None
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(
                f"{self.folder}: {WEIGHTS} and {DESCRIPTION} make no autoencoder ({reason}); fit "
                "the run again, or restore the files"
            ) from None


def write_run(folder: Path, weights: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write both files, each whole or not at all.

    Weights are written as float32 and without metadata, whose keys safetensors orders at random:
    equal weights give equal bytes.
    """
    tensors = {name: t.detach().to("cpu").float().contiguous() for name, t in weights.items()}
    text = json.dumps(description, sort_keys=True, indent=2, allow_nan=False) + "\n"
    write_atomic(folder / WEIGHTS, safetensors.torch.save(tensors))
    write_atomic(folder / DESCRIPTION, text.encode())


def read_run(folder: Path) -> SavedRun:
    """Read both files. RunError where the folder, a file or a tensor is missing or broken."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder; give the folder of a `cpsae fit` run")
    missing = [name for name in (WEIGHTS, DESCRIPTION) if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"{folder}: has no {' and no '.join(missing)}; give the folder of a complete `cpsae "
            "fit` run, or run the same `cpsae fit` again to complete it"
        )
    return SavedRun(
        folder, _read_weights(folder / WEIGHTS), _read_description(folder / DESCRIPTION)
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path}: cannot be read ({reason}); fit the run again, or restore the file"
        ) from None
    missing = [name for name in _TENSORS if name not in weights]
    if missing:
        raise RunError(
            f"{path}: has no tensor {', '.join(missing)}; expected {', '.join(_TENSORS)}"
        )
    return {name: weights[name].float() for name in _TENSORS}


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: is not well-formed ({error}); fit the run again, or restore the file"
        ) from None
    if not isinstance(description, dict):
        raise RunError(f"{path}: holds no JSON object; fit the run again, or restore the file")
    return description
