"""The demo: extract, fit and evaluation as the real commands run them, on an embedded model."""

import keyword
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpsae.config import ExtractSettings
from cpsae.demo.corpus import write_corpus
from cpsae.durable import local_folder
from cpsae.errors import SettingsError
from cpsae.evaluation.examples import FeatureExamples, find_examples
from cpsae.events import Note, OnEvent, ignore
from cpsae.models import find_source, load_tokenizer
from cpsae.sae.autoencoder import load
from cpsae.stages.extract import extract
from cpsae.stages.fit import FitResult, fit
from cpsae.stages.report import report
from cpsae.store import open_store
from cpsae.training.settings import FitSettings

MODEL = Path(__file__).parent / "demo-model"
LAYER = 3
_SHOWN = {
    "keyword": 2,
    "import": 1,
    "indentation": 2,
    "name": 1,
    "docstring": 1,
    "number": 1,
    "sign": 1,
}
"""How many features are shown of each sort of label."""


@dataclass(frozen=True)
class Demo:
    """What the demo made, and what its features stand for."""

    store: Path
    run: Path
    summary: dict[str, Any]
    features: list[FeatureExamples]
    page: Path
    """Where all of them are shown."""


def extract_settings(out: Path) -> ExtractSettings:
    """Stage 1 of the demo."""
    return ExtractSettings(
        model=str(MODEL),
        layer=LAYER,
        dataset=str(out / "corpus.jsonl"),
        vectors=200_000,
        store=str(out / "acts.zarr"),
        device="cpu",
    )


def fit_settings() -> FitSettings:
    """Stage 2 of the demo: the paper's preset, on a scale of minutes."""
    return FitSettings(n_latents=1024, batch_size=1024, steps=3000, lr=1e-3, device="cpu")


def run_demo(out: str | Path, on_event: OnEvent = ignore) -> Demo:
    """Run both stages in `out`, or go on from where an earlier demo there got to."""
    out = local_folder(out, "--out", SettingsError)
    on_event(Note(f"corpus: {write_corpus(out / 'corpus.jsonl')}"))
    stored = extract(extract_settings(out), on_event=on_event)
    store = Path(stored.path)
    fitted = fit(store, fit_settings(), out=out / "run", on_event=on_event)
    assert isinstance(fitted, FitResult), "nobody asked this fit to stop"
    features = _features(store, fitted.path)
    page = report(fitted.path, on_event=on_event).path
    return Demo(store, fitted.path, fitted.summary, features, page)


def _features(store: Path, run: Path) -> list[FeatureExamples]:
    tokenizer = load_tokenizer(find_source(str(MODEL)))
    part = open_store(store).evaluation
    assert part is not None, "an extraction holds rows out"
    found = find_examples(load(run), part, lambda token: str(tokenizer.decode([token])))
    return [
        feature
        for sort, count in _SHOWN.items()
        for feature in [f for f in found if sort_of(f.label) == sort][:count]
    ]


def sort_of(label: str) -> str:
    """What sort of Python text a feature's label is: a key of what is shown."""
    text = label.strip()
    if not text:
        return "line end" if "\n" in label else "indentation"
    if text in ("import", "from"):
        return "import"
    if keyword.iskeyword(text):
        return "keyword"
    if text.isidentifier():
        return "name"
    if text.isdigit():
        return "number"
    return "docstring" if text.startswith(('"""', "'''")) else "sign"
