"""What is fuzzed: files of each sort that cpsae reads, and what is done with them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from fuzz_samples import small_fit

import cpsae
from cpsae.config.resolve import read_recipe, read_run_config
from cpsae.corpus import Corpus, open_corpus
from cpsae.errors import SettingsError
from cpsae.json_files import read_object
from cpsae.models import TruncatedModel, describe, find_source, load_tokenizer
from cpsae.stages.evaluate import evaluate
from cpsae.stages.import_ import import_rows
from cpsae.training.recipes import resolve_fit

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Target:
    """Files, one of which is changed, and what reads them. May raise a CpsaeError."""

    files: str
    """A pattern in the folder of samples."""
    read: Callable[[Path], object]
    """folder: a copy of the samples that are needed, with the change."""
    beside: tuple[str, ...] = ()
    """Samples that are needed too."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Folders of the samples."""
        return (self.files.partition("/")[0], *self.beside)


def _store(folder: Path) -> None:
    path = folder / "acts.zarr"
    cpsae.verify_store(path, progress=False)
    store = cpsae.open_store(path)
    repr(store)
    for part in (store.training, store.evaluation):
        if part is not None:
            for chunk in part.chunks:
                part.rows(chunk)
            part.tokens(range(part.part.n_contexts))


def _run(folder: Path) -> None:
    sae = cpsae.load(folder / "run")
    repr(sae)
    sae.encode(torch.zeros(2, sae.d))
    cpsae.compare(folder / "run", progress=False)
    evaluate(folder / "run", folder / "acts.zarr", contexts=2, device="cpu")


def _resumed(folder: Path) -> None:
    (folder / "run" / "sae.safetensors").unlink()
    (folder / "run" / "summary.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "run" / "checkpoints" / "step-000004", ignore_errors=True)
    cpsae.fit(folder / "acts.zarr", small_fit(), out=folder / "run", progress=False)


def _corpus(folder: Path) -> None:
    for file in sorted((folder / "corpus").iterdir()):
        for _ in zip(range(200), open_corpus(Corpus(str(file))).documents(), strict=False):
            pass


def _converted(name: str) -> Callable[[Path], object]:
    return lambda folder: cpsae.convert(folder / name, folder / "converted")


def _imported(name: str) -> Callable[[Path], object]:
    return lambda folder: import_rows(folder / "rows" / name, folder / "imported.zarr")


def _model(folder: Path) -> None:
    _read_model(folder / "model")


def _gguf(folder: Path) -> None:
    _read_model(folder / "gguf" / "tiny.gguf")


def _read_model(path: Path) -> None:
    source = find_source(str(path))
    describe(source)
    load_tokenizer(source)
    TruncatedModel.load(source, 1, torch.float32, CPU).rows(torch.zeros(1, 8, dtype=torch.long))


def _settings(folder: Path) -> None:
    values = read_object(folder / "settings" / "values.json", SettingsError, "")
    resolve_fit({"--set": values})


def _recipe(folder: Path) -> None:
    for name in ("fit.toml", "config.json"):
        path = folder / "recipe" / name
        read_run_config(path)
        resolve_fit({f"recipe {path}": read_recipe(path)})


TARGETS = {
    "store documents": Target("acts.zarr/**/*.json", _store),
    "store objects": Target("acts.zarr/**/c/**/*", _store),
    "run": Target("run/*.*", _run, ("acts.zarr", "model")),
    "checkpoint": Target("run/checkpoints/step-000002/*", _resumed, ("acts.zarr",)),
    "corpus": Target("corpus/*", _corpus),
    "model": Target("model/*", _model),
    "gguf": Target("gguf/*", _gguf),
    "rows in numpy's format": Target("rows/rows.npy", _imported("rows.npy")),
    "rows in safetensors": Target("rows/rows.safetensors", _imported("rows.safetensors")),
    "cached activations": Target("rows/cached/*", _imported("cached")),
    "sae-lens": Target("sae-lens/*", _converted("sae-lens")),
    "sparsify": Target("sparsify/*", _converted("sparsify")),
    "safetensors": Target("safetensors/*", _converted("safetensors")),
    "gemma-scope": Target("gemma-scope/*", _converted("gemma-scope")),
    "settings": Target("settings/*", _settings),
    "recipe": Target("recipe/*", _recipe),
}
