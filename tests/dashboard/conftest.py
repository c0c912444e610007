"""A small store with text, and runs on it."""

from pathlib import Path

import pytest
from tiny import TOKENS

from cpsae.config import ExtractSettings
from cpsae.stages.extract import extract
from cpsae.stages.fit import fit
from cpsae.training.recipes import preset, resolve_fit


@pytest.fixture(scope="session")
def shown_store(gemma: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 3,000 and 300 rows; do not change it."""
    path = tmp_path_factory.mktemp("shown") / "acts.zarr"
    sizes = {"layer": 2, "tokens": TOKENS, "vectors": 3000}
    settings = {"model": str(gemma), "dataset": str(corpus), "store": str(path), "device": "cpu"}
    extract(ExtractSettings.model_validate({**sizes, **settings}))
    return path


@pytest.fixture(scope="session")
def shown_runs(shown_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, `k=4` and `k=8`, of TopK with 40 features that are enabled
    bit by bit; do not change it."""
    folder = tmp_path_factory.mktemp("runs")
    for k in (4, 8):
        options = {"steps": "40", "batch_size": "64", "n_latents": "40", "device": "cpu"}
        given = {**options, "k": str(k), "growth": "linear", "initial_fraction": "0.5"}
        settings = resolve_fit({"option": given, "preset topk": preset("topk")}).settings
        fit(shown_store, settings, out=folder / f"k={k}", preset="topk")
    return folder
