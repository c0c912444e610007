"""What is fuzzed: files of each sort that cpsae reads, and what is done with them."""

import gzip
import json
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cpsae
from cpsae.config import ExtractSettings
from cpsae.corpus import Corpus, open_corpus
from cpsae.demo.run import LAYER, MODEL
from cpsae.errors import SettingsError
from cpsae.models import TruncatedModel, describe, find_source, load_tokenizer
from cpsae.stages.evaluate import evaluate
from cpsae.stages.extract import extract
from cpsae.training.recipes import resolve_fit
from cpsae.training.settings import FitSettings

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Target:
    """Files, one of which is changed, and what reads them. May raise a CpsaeError."""

    files: str
    """A pattern in the folder of samples."""
    read: Callable[[Path], object]
    """folder: a copy of the samples, with the change."""


def make_samples(folder: Path) -> None:
    """One good file of each sort, small."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    texts = [f"def f{i}(x):\n    return x + {i}\n" * 40 for i in range(40)]
    lines = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts))
    (corpus / "texts.jsonl").write_text(lines)
    (corpus / "all.json").write_text(json.dumps([{"text": text} for text in texts]))
    (corpus / "table.csv").write_text("text,n\n" + "".join(f'"word {i}",{i}\n' for i in range(99)))
    (corpus / "plain.txt").write_text("\n".join(texts))
    (corpus / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    _parquet(corpus / "table.parquet", texts)
    settings = ExtractSettings(
        model=str(MODEL),
        layer=LAYER,
        tokens=32,
        dataset=str(corpus / "texts.jsonl"),
        vectors=2000,
        store=str(folder / "acts.zarr"),
        device="cpu",
    )
    extract(settings)
    cpsae.fit(folder / "acts.zarr", _fit(), out=folder / "run", progress=False)
    for target in ("sae-lens", "sparsify", "safetensors"):
        cpsae.export(folder / "run", target, folder / target)
    _gemma_scope(folder / "gemma-scope")
    shutil.copytree(MODEL, folder / "model")
    (folder / "settings").mkdir()
    values = 'k = "8"\nlr = "1e-3"\n"temperature.base" = "0.2"\n'
    (folder / "settings" / "values.toml").write_text(values)


def _fit() -> FitSettings:
    shape = FitSettings(kind="topk", k=8, n_latents=64, normalize="none", batch_size=64)
    return shape.model_copy(update={"steps": 4, "checkpoint_every": 2, "log_every": 1})


def _parquet(path: Path, texts: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)


def _gemma_scope(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (16, 32), "W_dec": (32, 16), "b_dec": (16,)}
    shapes |= {"b_enc": (32,), "threshold": (32,)}
    arrays: dict[str, Any] = {
        name: random.random(shape, np.float32) for name, shape in shapes.items()
    }
    np.savez(folder / "params.npz", **arrays)


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
    cpsae.fit(folder / "acts.zarr", _fit(), out=folder / "run", progress=False)


def _corpus(folder: Path) -> None:
    for file in sorted((folder / "corpus").iterdir()):
        for _ in zip(range(200), open_corpus(Corpus(str(file))).documents(), strict=False):
            pass


def _converted(name: str) -> Callable[[Path], object]:
    return lambda folder: cpsae.convert(folder / name, folder / "converted")


def _model(folder: Path) -> None:
    source = find_source(str(folder / "model"))
    describe(source)
    load_tokenizer(source)
    TruncatedModel.load(source, 1, torch.float32, CPU).rows(torch.zeros(1, 8, dtype=torch.long))


def _settings(folder: Path) -> None:
    try:
        text = (folder / "settings" / "values.toml").read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except ValueError:  # what is fuzzed is what is made of values
        raise SettingsError("no TOML") from None
    resolve_fit({"--set": values})


TARGETS = {
    "store documents": Target("acts.zarr/**/*.json", _store),
    "store objects": Target("acts.zarr/**/c/**/*", _store),
    "run": Target("run/*.*", _run),
    "checkpoint": Target("run/checkpoints/step-000002/*", _resumed),
    "corpus": Target("corpus/*", _corpus),
    "model": Target("model/*", _model),
    "sae-lens": Target("sae-lens/*", _converted("sae-lens")),
    "sparsify": Target("sparsify/*", _converted("sparsify")),
    "safetensors": Target("safetensors/*", _converted("safetensors")),
    "gemma-scope": Target("gemma-scope/*", _converted("gemma-scope")),
    "settings": Target("settings/*", _settings),
}
