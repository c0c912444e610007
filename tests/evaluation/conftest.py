"""Small causal models with heads, stores that were made with them, and runs on those."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from tiny import TOKENS

sys.path.insert(0, str(Path(__file__).parent.parent / "extraction"))

from families import CONFIGS

from cpsae.config import ExtractSettings
from cpsae.stages.extract import extract
from cpsae.stages.fit import FitResult, fit
from cpsae.training.settings import FitSettings


class Made(NamedTuple):
    """A run, its store, and the model that the store was made with."""

    run: Path
    store: Path
    model: Path


def save_whole(kind: str, folder: Path, tokenizer_of: Path, bos: bool) -> Path:
    """A model of this family with its head, every weight random; without `bos` its tokenizer has
    none."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_of)
    config = CONFIGS[kind](len(tokenizer))
    torch.manual_seed(0)
    masked = kind == "bert"
    auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
        model.get_output_embeddings().weight.mul_(4)  # predictions that are far from uniform
    model.save_pretrained(folder)
    if not bos:
        tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def causal(gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """causal(kind) gives the folder of a small causal model, made once; do not change it."""
    made: dict[Any, Path] = {}

    def make(kind: str, bos: bool = True) -> Path:
        if (kind, bos) not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind, bos] = save_whole(kind, folder, gemma, bos)
        return made[kind, bos]

    return make


@pytest.fixture(scope="session")
def trained(
    causal: Callable[..., Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Made]:
    """trained(kind, hook=…, …) gives a run of a few steps on a store of block 1 of such a model,
    made once; `fit` holds its settings. About a third of its rows are over its bound."""
    made: dict[str, Made] = {}

    def make(
        kind: str, fitting: dict[str, Any] | None = None, bos: bool = True, **changes: Any
    ) -> Made:
        name = repr((kind, fitting, bos, changes))
        if name not in made:
            folder = tmp_path_factory.mktemp("trained")
            model = causal(kind, bos)
            values: dict[str, Any] = {
                "model": str(model),
                "dataset": str(corpus),
                "store": str(folder / "a.zarr"),
            }
            values |= {"layer": 1, "tokens": TOKENS, "vectors": 3000, "device": "cpu"}
            values |= {"store_dtype": "float32", **changes}
            store = Path(extract(ExtractSettings.model_validate(values)).path)
            settings: dict[str, Any] = {
                "steps": 30,
                "batch_size": 64,
                "device": "cpu",
                "lr": 3e-3,
                "n_latents": 48,
            }
            settings |= {"max_norm": 1.05, **(fitting or {})}
            done = fit(store, FitSettings.model_validate(settings), out=folder / "run")
            assert isinstance(done, FitResult)
            made[name] = Made(done.path, store, model)
        return made[name]

    return make
