"""A run in another program's format, as one calls it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from cpsae.errors import RunError, SettingsError
from cpsae.interop import TARGETS
from cpsae.interop.exported import Files, free_folder, on_disk, write_folder
from cpsae.interop.hub import HubPlace, refuse_without_token
from cpsae.interop.hub import push as push_to_hub
from cpsae.interop.model_card import CARD, Figures, model_card
from cpsae.interop.origin import Origin
from cpsae.json_files import read_object
from cpsae.stages.load import load
from cpsae.training.run_folder import RunFolder, lines_up_to


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path | None
    """Where the folder is; None: on the hub alone."""
    to: str
    files: Files
    pushed: str | None = None
    """Its address on the hub, if it is there."""
    place: HubPlace | None = None

    @property
    def load(self) -> str:
        """The line of Python that loads it."""
        if self.place is not None and self.path is None:
            return on_disk(self.files.load, f"huggingface_hub.{self.place.download}")
        return self.files.load.replace("{folder}", str(self.path))

    def __repr__(self) -> str:
        return (
            f"Exported({self.path or self.pushed}: {self.to} {self.files.what}, d_in "
            f"{self.files.d}, {self.files.n} latents)"
        )

    def as_json(self) -> Mapping[str, Any]:
        """Flat, without the contents."""
        return {
            "path": None if self.path is None else str(self.path),
            "pushed": self.pushed,
            "to": self.to,
            "files": sorted(self.files.contents),
            "what": self.files.what,
            "d_in": self.files.d,
            "n_latents": self.files.n,
            "latent_scale": self.files.latent_scale,
            "load": self.load,
            "notes": list(self.files.notes),
        }


def export(
    run: str | PathLike[str],
    to: str,
    out: str | PathLike[str] | None = None,
    *,
    step: int | None = None,
    model: str | None = None,
    push: str | None = None,
    private: bool = False,
) -> Exported:
    """Write the autoencoder of a finished run, or of any run after update `step`, as the folder
    `out` in the format `to`, one of cpsae.interop.TARGETS, with a README.md that says what it is
    and what it is worth. It takes raw vectors and gives raw reconstructions; its latents are
    `latent_scale` times those of `cpsae.load(run)`.

    model: what that program calls the language model, where it is not the name in the store.
    push: ORG/NAME or ORG/NAME/FOLDER on the Hugging Face hub, where the files go in one commit, of
    whoever the hub's client is logged in as; `private`: a repository that is made for it.
    Raises SettingsError for another `to`, a malformed `push`, and where neither it nor `out` is
    given; RunError where this is no run, or one that is not finished; ExportError where the format
    has no place for the kind or the normalisation, `out` is taken, or the hub refuses; DiskError.
    Nothing is written then.
    """
    place = _place(to, out, push, private)
    folder = RunFolder(run)
    config = folder.read_config()
    target = None if out is None else free_folder(out)
    sae = load(run, step=step)
    origin = Origin.of_run(config, model, step)
    files: Files = import_module(TARGETS[to]).export(sae, origin)
    card = model_card(config, origin, files, to, _figures(folder, step), place)
    files = replace(files, contents={**files.contents, CARD: card})
    pushed = None
    if place is not None:  # first, so that where it fails the same command again can write `out`
        pushed = push_to_hub(files.contents, place, CARD, private, f"cpsae export --to {to}")
    if target is not None:
        write_folder(target, files.contents)
    return Exported(None if out is None else Path(out).expanduser(), to, files, pushed, place)


def _place(
    to: str, out: str | PathLike[str] | None, push: str | None, private: bool
) -> HubPlace | None:
    """On the hub, once all that can be seen wrong beforehand is not. Raises SettingsError and
    ExportError."""
    if to not in TARGETS:
        raise SettingsError(f"to = '{to}' is no format: take {', '.join(TARGETS)}")
    if push is None:
        if out is None:
            raise SettingsError("--out: is missing; give a folder to write, or --push, or both")
        if private:
            raise SettingsError("--private: is of a repository on the hub; give --push too")
        return None
    place = HubPlace.parse(push)
    refuse_without_token()
    return place


def _figures(run: RunFolder, step: int | None) -> Figures:
    """Of held-out rows where they were measured, else of the training."""
    measured = run.evaluation if step is None else run.evaluation_of(step)
    if measured.exists():
        values = read_object(measured, RunError, "run `cpsae evaluate` again")
        contexts = values.get("evaluation_contexts")
        count = f"{values.get('evaluation_rows', 0):,} held-out rows"
        return Figures(count + (f" of {contexts:,} contexts" if contexts else ""), values)
    if step is None:
        return Figures("held-out rows, at the end of training", run.read_summary())
    lines = [json.loads(line) for line in lines_up_to(run.metrics, step)]
    return Figures(f"the training batch of step {step:,}", lines[-1] if lines else {})
