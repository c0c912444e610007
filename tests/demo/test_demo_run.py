"""The demo from end to end, on a scale of seconds."""

from pathlib import Path

import pytest

from cpsae.config import ExtractSettings
from cpsae.demo import run
from cpsae.training.settings import FitSettings


@pytest.mark.parametrize(
    ("label", "sort"),
    [
        ("    ", "indentation"),
        ("\n", "line end"),
        (" return", "keyword"),
        ("import", "import"),
        (" self", "name"),
        ("3", "number"),
        ('"""', "docstring"),
        ("):", "sign"),
    ],
)
def test_sorts_of_labels(label: str, sort: str) -> None:
    assert run.sort_of(label) == sort


def test_demo_runs_shows_features_and_says_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract, fit = run.extract_settings, run.fit_settings

    def small_extract(out: Path) -> ExtractSettings:
        return extract(out).model_copy(update={"vectors": 6000})

    def small_fit() -> FitSettings:
        return fit().model_copy(update={"n_latents": 64, "steps": 150, "batch_size": 256})

    monkeypatch.setattr(run, "extract_settings", small_extract)
    monkeypatch.setattr(run, "fit_settings", small_fit)
    demo = run.run_demo(tmp_path / "demo")
    assert demo.summary["explained_variance"] > 0.1
    assert demo.summary["evaluation_rows"] == 600
    again = run.run_demo(tmp_path / "demo")
    assert again.summary == demo.summary
    assert again.features == demo.features


def test_the_embedded_model_is_small_and_safe() -> None:
    files = sorted(file.name for file in run.MODEL.iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sum(file.stat().st_size for file in run.MODEL.iterdir()) <= 12_000_000
