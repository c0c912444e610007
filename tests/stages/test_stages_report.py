"""Reports of runs: where they are written, what of them is refused, what they say of themselves."""

import base64
import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from cpsae.dashboard.firings import Amounts
from cpsae.errors import ModelError, RunError, SettingsError, StoreError
from cpsae.stages import browsed
from cpsae.stages import report as module
from cpsae.stages.report import report, report_of_fit


@pytest.fixture(scope="module")
def runs(gemma, corpus, tmp_path_factory):
    """Two finished runs in a folder of a sweep, and the store beside it."""
    from cpsae.config import ExtractSettings
    from cpsae.stages.extract import extract
    from cpsae.stages.sweep import sweep
    from cpsae.training.recipes import preset, resolve_fit
    from cpsae.training.sweep import members, parse_axes

    folder = tmp_path_factory.mktemp("reported")
    sizes = {"layer": 2, "tokens": 16, "vectors": 3000, "store": str(folder / "acts.zarr")}
    extract(
        ExtractSettings.model_validate(
            {**sizes, "model": str(gemma), "dataset": str(corpus), "device": "cpu"}
        )
    )
    fixed = {"steps": "20", "batch_size": "64", "n_latents": "24", "device": "cpu"}
    asked = members(
        parse_axes(["k=4,8"]),
        lambda chosen: (
            resolve_fit(
                {"--sweep": dict(chosen), "option": fixed, "preset topk": preset("topk")}
            ).settings
        ),
    )
    sweep(folder / "acts.zarr", asked, out=folder / "sweep", preset="topk")
    return folder / "sweep"


def data_of(page, name="overview-data"):
    letters = re.search(rf'id="{name}">([A-Za-z0-9+/=]*)<', page.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(letters)))


def test_a_run_is_reported_in_its_folder_with_those_beside_it(runs, tmp_path) -> None:
    copy = shutil.copytree(runs, tmp_path / "sweep")
    done = report(copy / "k=4", rows=300, logits=False)
    assert done.path == copy / "k=4" / "report.html"
    assert done.size == done.path.stat().st_size < 10_000_000
    told = done.as_json()
    assert told["runs"][0]["features"] == 24 and told["runs"][0]["texts"] is True
    overview = data_of(done.path)
    [line] = overview["frontier"]
    assert [point["run"] for point in line["points"]] == [0, None]
    summaries = [json.loads((copy / k / "summary.json").read_text()) for k in ("k=4", "k=8")]
    assert [p["explained_variance"] for p in line["points"]] == pytest.approx(
        [s["explained_variance"] for s in summaries], rel=1e-4
    )
    assert overview["runs"][0]["curves"]["step"][-1] == 20


def test_several_runs_go_to_the_working_folder(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = report(runs, rows=300, logits=False)
    assert done.path == Path("report.html") and list(done.runs) == ["k=4", "k=8"]
    overview = data_of(done.path)
    assert [run["name"] for run in overview["runs"]] == ["k=4", "k=8"]
    assert [point["run"] for point in overview["frontier"][0]["points"]] == [0, 1]
    for number in (0, 1):
        assert len(data_of(done.path, f"detail-data-{number}")["features"]["count"]) == 24


def test_the_same_runs_give_the_same_bytes(runs, tmp_path) -> None:
    pages = [report(runs / "k=4", tmp_path / f"{i}.html", rows=300).path for i in (0, 1)]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_examples_are_the_text_of_the_store(runs, tmp_path) -> None:
    page = report(runs / "k=4", tmp_path / "r.html", rows=300, logits=False).path
    texts = data_of(page, "detail-data-0")["texts"]
    from cpsae.store import open_store

    part = open_store(runs.parent / "acts.zarr").evaluation
    said = {
        tuple(f"w{t - 4}" if t >= 4 else ("<pad>", "<eos>", "<bos>", "<unk>")[t] for t in context)
        for context in part.tokens(range(20)).tolist()
    }
    shown = {tuple(texts["vocabulary"][w] for w in context) for context in texts["contexts"]}
    assert shown and shown <= said


def test_without_a_tokenizer_it_is_made_and_says_so(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cpsae.stages.store_language.model_at_hand", lambda *_, **__: None)
    done = report(runs / "k=4", tmp_path / "r.html", rows=300)
    assert "Made without a tokenizer" in done.notes[0]
    assert done.as_json()["runs"][0]["texts"] is False
    vocabulary = data_of(done.path, "detail-data-0")["texts"]["vocabulary"]
    assert all(re.fullmatch(r"#\d+", word) for word in vocabulary)


def test_another_tokenizer_is_not_taken_for_the_stores(runs, gemma, tmp_path) -> None:
    other = shutil.copytree(gemma, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"w7":', '"v7":'))
    with pytest.raises(ModelError, match="its tokenizer is not the one that"):
        report(runs / "k=4", tmp_path / "r.html", rows=300, model=str(other))
    assert not (tmp_path / "r.html").exists()


def test_a_store_of_arrays_has_no_texts(tmp_path) -> None:
    import numpy as np

    from cpsae.stages.fit import fit
    from cpsae.store import write_store
    from cpsae.training.settings import FitSettings

    rows = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)
    store = write_store(tmp_path / "a.zarr", rows)
    run = fit(store, FitSettings(steps=5, batch_size=32, device="cpu"), out=tmp_path / "run").path
    done = report(run)
    assert "made from arrays" in done.notes[0]
    assert data_of(done.path, "detail-data-0")["texts"] is None
    assert report_of_fit([run], tmp_path) is None


def test_what_cannot_be_reported_is_said(runs, tmp_path) -> None:
    copy = shutil.copytree(runs, tmp_path / "sweep")
    (copy / "k=4" / "summary.json").unlink()
    with pytest.raises(RunError, match="k=4: is not finished"):
        report(copy / "k=4")
    with pytest.raises(SettingsError, match="ends in .html"):
        report(runs / "k=4", tmp_path / "r.pdf")
    with pytest.raises(SettingsError, match="is not a number of rows"):
        report(runs / "k=4", tmp_path / "r.html", rows=0)
    (tmp_path / "d.html").mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        report(runs / "k=4", tmp_path / "d.html")
    notes: list[str] = []
    done = report(
        copy, tmp_path / "r.html", rows=30, logits=False, on_event=lambda e: notes.append(str(e))
    )
    assert list(done.runs) == ["k=8"] and any("left out" in note for note in notes)


def test_a_store_of_another_width_is_refused(runs, tmp_path) -> None:
    import numpy as np

    from cpsae.store import write_store

    rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    with pytest.raises(StoreError, match="its rows have d = 8"):
        report(runs / "k=4", tmp_path / "r.html", store=write_store(tmp_path / "a.zarr", rows))


def test_a_page_that_is_too_large_has_fewer_examples(runs, tmp_path, monkeypatch) -> None:
    whole = report(runs / "k=4", tmp_path / "a.html", rows=600, logits=False)
    monkeypatch.setattr(module, "MOST_BYTES", whole.size - 1)
    less = report(runs / "k=4", tmp_path / "b.html", rows=600, logits=False)
    assert less.size < whole.size
    most = [
        max(len(e[0]) for e in data_of(page, "detail-data-0")["features"]["examples"])
        for page in (whole.path, less.path)
    ]
    assert most[1] <= Amounts(top=8).top < most[0]


def test_of_many_features_some_are_shown(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(browsed, "_MOST_FEATURES", 10)
    done = report(runs, tmp_path / "r.html", rows=300, logits=False)
    columns = data_of(done.path, "detail-data-0")["features"]
    assert len(columns["ids"]) == 10 == len(columns["count"])
    assert any(note.startswith("10 of 24 features") for note in done.notes)
    assert any(note.startswith("Features are shown of 1 of the 2 runs") for note in done.notes)
    overview = data_of(done.path)
    assert overview["runs"][0]["summary"]["m"] == 24 and overview["runs"][1]["summary"] is None


def test_the_report_of_a_fit_is_made_once_and_again_for_newer_runs(runs, tmp_path) -> None:
    import os

    copy = shutil.copytree(runs, tmp_path / "sweep")
    both = [copy / "k=4", copy / "k=8"]
    first = report_of_fit(both, copy)
    assert first is not None and first.path == copy / "report.html"
    assert report_of_fit(both, copy) is None
    later = first.path.stat().st_mtime + 5
    os.utime(copy / "k=8" / "summary.json", (later, later))
    assert report_of_fit(both, copy) is not None
