"""The public functions from end to end: what they take, show and give."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

import cpsae
from cpsae.config import ExtractSettings
from cpsae.events import Finished, Started
from cpsae.training.settings import FitSettings

SMALL: Any = {"steps": 6, "batch_size": 32, "device": "cpu"}


@pytest.fixture
def store(tmp_path):
    rows = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    return cpsae.open_store(cpsae.write_store(tmp_path / "acts.zarr", rows))


def test_a_fit_by_keywords_is_the_fit_by_settings(store, tmp_path) -> None:
    by_keywords = cpsae.fit(store, out=tmp_path / "a", preset="topk", k=3, progress=False, **SMALL)
    preset: Any = {"growth": "none", "normalize": "unit", "init": "data", "lr": 8e-4}
    preset |= {"lr_scaling": "width", "lr_decay": 0.2, "revive_every": 250}
    settings = FitSettings(kind="topk", k=3, **preset, **SMALL)
    by_settings = cpsae.fit(store.path, settings, out=str(tmp_path / "b"), preset="topk")
    assert by_keywords.summary == by_settings.summary
    ours, theirs = (cpsae.load(run) for run in (by_keywords, by_settings))
    assert torch.equal(ours.W_enc, theirs.W_enc)


def test_results_are_paths_and_read_well(store, tmp_path) -> None:
    run = cpsae.fit(store, out=tmp_path / "run", preset="topk", k=3, progress=False, **SMALL)
    assert repr(run).startswith(f"FitResult({tmp_path}/run: explained_variance 0.")
    found = cpsae.evaluate(run, progress=False)
    assert "explained_variance" in repr(found) and "\n" not in repr(found)
    swept = cpsae.sweep(
        store, {"k": [2, 4]}, preset="topk", out=tmp_path / "s", progress=False, **SMALL
    )
    assert [line.split(":")[0].strip() for line in repr(swept).splitlines()[1:]] == ["k=2", "k=4"]
    compared = cpsae.compare([run, swept], progress=False)
    assert repr(compared) == compared.markdown() == compared._repr_markdown_()
    assert set(cpsae.evaluate_each([swept], progress=False)) == {
        tmp_path / "s" / "k=2",
        tmp_path / "s" / "k=4",
    }
    exported = cpsae.export(run, "safetensors", tmp_path / "out")
    assert len(repr(exported)) < 200 and "safetensors" in repr(exported)
    assert not cpsae.verify_store(store, progress=False).problems


def test_extract_takes_keywords_and_says_what_it_wrote(gemma, corpus, tmp_path, capsys) -> None:
    wanted: Any = {"model": gemma, "dataset": corpus, "layer": 2, "tokens": 16, "vectors": "1k"}
    done = cpsae.extract(**wanted, store=tmp_path / "acts.zarr", device="cpu")
    shown = capsys.readouterr()
    assert shown.out == "" and "extract: 1,100 of 1,100 vectors (100%)" in shown.err
    assert repr(done) == (
        f"Extraction({tmp_path}/acts.zarr: 1,000 vectors and 100 held out, d = 32)"
    )
    again = cpsae.extract(ExtractSettings(**wanted, store=done, device="cpu"), progress=False)
    assert again.computed_chunks == 0
    store = cpsae.open_store(done)
    assert repr(store).splitlines() == [
        f"Store {tmp_path}/acts.zarr: {gemma}, layer 2 resid_post, {corpus}, contexts of 16 tokens",
        "  training    1,000 x 32 bfloat16 (64 kB)",
        "  evaluation  100 x 32 bfloat16 (6.4 kB)",
    ]


def test_progress_is_shown_or_not_or_handed_over(store, tmp_path, capsys) -> None:
    cpsae.fit(store, out=tmp_path / "a", **SMALL)
    assert "fit: 6 of 6 steps (100%)" in capsys.readouterr().err
    cpsae.fit(store, out=tmp_path / "b", progress=False, **SMALL)
    assert capsys.readouterr() == ("", "")
    heard = []
    cpsae.fit(store, out=tmp_path / "c", on_event=heard.append, **SMALL)
    assert capsys.readouterr() == ("", "")
    assert {Started, Finished} <= set(map(type, heard))


class Display:
    """What a notebook shows."""

    def __init__(self) -> None:
        self.contents: list[dict[str, str]] = []

    def __call__(self, content, raw, display_id):
        assert raw and display_id
        self.contents.append(content)
        return self

    def update(self, content, raw):
        assert raw
        self.contents.append(content)


def test_a_notebook_shows_a_display_that_changes(store, tmp_path, capsys, monkeypatch) -> None:
    display = Display()
    module: Any = type(sys)("IPython")
    module.get_ipython = lambda: type("Shell", (), {"kernel": object()})()
    module.display = type(sys)("IPython.display")
    module.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    cpsae.fit(store, out=tmp_path / "a<b", **SMALL)
    assert "run folder: " in capsys.readouterr().out
    last = [c["text/plain"] for c in display.contents if c["text/plain"].startswith("fit")][-1]
    assert last.startswith("fit: 6 of 6 steps (100%)")
    assert '<progress value="6" max="6">' in "".join(c["text/html"] for c in display.contents)
    display.contents.clear()
    cpsae.fit(store, out=tmp_path / "b", progress=False, **SMALL)
    assert not display.contents and capsys.readouterr() == ("", "")


def test_the_package_lists_its_names_and_no_others() -> None:
    assert dir(cpsae) == sorted(cpsae.__all__)
    assert all(getattr(cpsae, name) is not None for name in cpsae.__all__)
