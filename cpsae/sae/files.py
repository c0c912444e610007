"""An autoencoder's two files: sae.safetensors (weights) and sae.json (what inference needs beside).

Nothing here unpickles: a run folder from a stranger can be opened.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cpsae.errors import RunError, SettingsError, first_line
from cpsae.json_files import as_json_bytes, read_object, write_object
from cpsae.sae.kind import Kind
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.tensor_files import (
    CHECKSUM,
    Streamed,
    checksum_of,
    crc32c_of,
    load_tensors,
    write_tensors,
)

WEIGHTS = "sae.safetensors"
DESCRIPTION = "sae.json"
_ADVICE = "fit the run again, or restore the file"
_KEYS = {"kind", "d", "n_latents", "n_enabled", "normalization", "hook", CHECKSUM}
"""Of every kind's description."""


@dataclass(frozen=True)
class SavedAutoencoder:
    """The contents of both files."""

    folder: Path
    weights: dict[str, Tensor]
    """float32, by the names in the file."""
    description: dict[str, Any]

    def kind(self) -> Kind:
        """The kind, for inference. RunError where it is not to be had, or a tensor of it is not
        in the file; KeyError, TypeError or ValueError where sae.json is malformed."""
        try:
            kind_class = load_kind(str(self.description["kind"]))
        except SettingsError as error:
            raise RunError(
                f"{self.folder / DESCRIPTION}: {error}; was it trained by a newer cpsae, or with a "
                "package that is not installed here?"
            ) from None
        d, n = int(self.description["d"]), int(self.description["n_latents"])
        expected = [spec.saved or name for name, spec in kind_class.weights.items()]
        missing = [name for name in expected if name not in self.weights]
        if missing:
            raise RunError(
                f"{self.folder / WEIGHTS}: has no tensor {', '.join(missing)}; expected "
                f"{', '.join(expected)}"
            )
        return kind_class.from_constants(self.description, d, n)

    def check(self, kind: Kind) -> None:
        """That the files are those that were written, and say nothing that is not understood.
        Raises RunError."""
        unknown = self.description.keys() - _KEYS - kind.constants().keys()
        if unknown:
            raise RunError(
                f"{self.folder / DESCRIPTION}: holds {', '.join(sorted(unknown))}, which this "
                "version does not know; update cpsae"
            )
        expected = self.description.get(CHECKSUM)  # earlier versions recorded none
        try:
            found = expected and checksum_of(self.description, crc32c_of(self.folder / WEIGHTS))
        except OSError as error:
            raise RunError(f"{self.folder / WEIGHTS}: {first_line(error)}; {_ADVICE}") from None
        if found != expected:
            raise RunError(
                f"{self.folder}: {WEIGHTS} and {DESCRIPTION} are not as they were written: their "
                f"checksum is {found}, expected {expected}; restore them, or take {CHECKSUM!r} out "
                f"of {DESCRIPTION} where they were changed on purpose"
            )

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
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise RunError(
                f"{self.folder}: {WEIGHTS} and {DESCRIPTION} make no autoencoder "
                f"({first_line(error)}); fit the run again, or restore the files"
            ) from None


def describe(
    kind: Kind, normalizer: Normalizer, n_enabled: int, hook: Mapping[str, Any]
) -> dict[str, Any]:
    """What sae.json holds."""
    return {
        "kind": kind.name,
        "d": kind.plan.d,
        "n_latents": kind.plan.n,
        "n_enabled": n_enabled,
        "normalization": normalizer.to_json(),
        "hook": dict(hook),
        **kind.constants(),
    }


def write_autoencoder(
    folder: Path, weights: Mapping[str, Streamed], description: Mapping[str, Any]
) -> None:
    """Write both files, each whole or not at all; weights are float32.

    There is no metadata, whose keys safetensors orders at random: equal weights give equal bytes.
    """
    checksum = write_tensors(folder / WEIGHTS, weights)
    write_object(folder / DESCRIPTION, _sealed(description, checksum))


def autoencoder_files(
    weights: Mapping[str, Tensor], description: Mapping[str, Any]
) -> dict[str, bytes]:
    """The very bytes of both files, by name, where a whole folder is written at once."""
    tensors = {name: t.detach().to("cpu").float().contiguous() for name, t in weights.items()}
    content = safetensors.torch.save(tensors)
    sealed = _sealed(description, google_crc32c.value(content))
    return {WEIGHTS: content, DESCRIPTION: as_json_bytes(sealed)}


def read_autoencoder(folder: Path) -> SavedAutoencoder:
    """Read both files. RunError where the folder or a file is missing or broken."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder; give the folder of a `cpsae fit` run")
    missing = [name for name in (WEIGHTS, DESCRIPTION) if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"{folder}: has no {' and no '.join(missing)}; give the folder of a complete `cpsae "
            "fit` run, or run the same `cpsae fit` again to complete it"
        )
    description = read_object(folder / DESCRIPTION, RunError, _ADVICE)
    return SavedAutoencoder(folder, _read_weights(folder / WEIGHTS), description)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({first_line(error)}); {_ADVICE}") from None
    return {name: tensor.float() for name, tensor in weights.items()}


def _sealed(description: Mapping[str, Any], weights: int) -> dict[str, Any]:
    """A description with its checksum; weights: CRC-32C of the file of weights."""
    ordered: dict[str, Any] = json.loads(json.dumps(description, sort_keys=True))  # as in the file
    return {**ordered, CHECKSUM: checksum_of(ordered, weights)}
