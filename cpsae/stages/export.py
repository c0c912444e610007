"""A run in another program's format, as one calls it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from cpsae.errors import SettingsError
from cpsae.interop import TARGETS
from cpsae.interop.exported import Files, free_folder, write_folder
from cpsae.interop.origin import Origin
from cpsae.stages.load import load
from cpsae.training.run_folder import RunFolder


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    to: str
    files: Files

    def __repr__(self) -> str:
        return (
            f"Exported({self.path}: {self.to} {self.files.what}, d_in {self.files.d}, "
            f"{self.files.n} latents)"
        )

    def as_json(self) -> Mapping[str, Any]:
        """Flat, without the contents."""
        return {
            "path": str(self.path),
            "to": self.to,
            "files": sorted(self.files.contents),
            "what": self.files.what,
            "d_in": self.files.d,
            "n_latents": self.files.n,
            "latent_scale": self.files.latent_scale,
            "load": self.files.load.replace("{folder}", str(self.path)),
            "notes": list(self.files.notes),
        }


def export(
    run: str | PathLike[str],
    to: str,
    out: str | PathLike[str],
    *,
    step: int | None = None,
    model: str | None = None,
) -> Exported:
    """Write the autoencoder of a finished run, or of any run after update `step`, as the folder
    `out` in the format `to`, one of cpsae.interop.TARGETS. It takes raw vectors and gives raw
    reconstructions; its latents are `latent_scale` times those of `cpsae.load(run)`.

    model: what that program calls the language model, where it is not the name in the store.
    Raises SettingsError for another `to`; RunError where this is no run, or one that is not
    finished; ExportError where the format has no place for the kind or the normalisation, or `out`
    is taken; DiskError. Nothing is written then.
    """
    if to not in TARGETS:
        raise SettingsError(f"to = '{to}' is no format: take {', '.join(TARGETS)}")
    config = RunFolder(run).read_config()
    folder = free_folder(out)
    sae = load(run, step=step)
    files: Files = import_module(TARGETS[to]).export(sae, Origin.of_run(config, model, step))
    write_folder(folder, files.contents)
    return Exported(Path(out).expanduser(), to, files)
