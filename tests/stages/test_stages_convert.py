"""A converted run as the other stages see it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cpsae
from cpsae.errors import ExportError, RunError, SettingsError, SourceError, StoreError

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from published_folders import D, N, rows, sae_lens_plainly, write_sae_lens  # noqa: E402
from small_runs import relative  # noqa: E402


@pytest.fixture
def place(tmp_path):
    """A store of block 19 and an autoencoder of SAELens."""
    cpsae.write_store(tmp_path / "acts.zarr", rows(2000, seed=1), layer=19, store_dtype="float32")
    write_sae_lens(tmp_path / "sae", "jumprelu")
    return tmp_path


def told():
    said = []
    return said, lambda event: said.append(getattr(event, "text", ""))


def test_the_run_folder_says_where_it_is_from(place) -> None:
    done = cpsae.convert(place / "sae", place / "run")
    assert (done.format, done.what, done.kind) == ("sae-lens", "jumprelu", "jumprelu")
    assert {f.name for f in (place / "run").iterdir()} == {
        *("config.json", "sae.json", "sae.safetensors", "summary.json")
    }
    config = json.loads((place / "run/config.json").read_text())
    assert (config["preset"], config["store"]) == ("sae-lens", None)
    source = config["source"]
    assert source["path"] == str(place / "sae")
    assert [file["name"] for file in source["files"]] == ["cfg.json", "sae_weights.safetensors"]
    sizes = [(place / "sae" / file["name"]).stat().st_size for file in source["files"]]
    assert [file["bytes"] for file in source["files"]] == sizes
    hook = json.loads((place / "run/sae.json").read_text())["hook"]
    assert (hook["layer"], hook["name"], hook["model"]) == (19, "resid_post", "gemma-2-2b")


def test_the_same_folder_gives_the_same_bytes(place) -> None:
    for name in ("a", "b"):
        cpsae.convert(place / "sae", place / name)
    for file in ("config.json", "sae.json", "sae.safetensors", "summary.json"):
        assert (place / "a" / file).read_bytes() == (place / "b" / file).read_bytes()


def test_measured_on_a_store(place) -> None:
    """The figures are those of its outputs, in float64."""
    done = cpsae.convert(place / "sae", place / "run", store=place / "acts.zarr")
    part = cpsae.open_store(place / "acts.zarr").evaluation
    x = np.concatenate([part.rows(chunk) for chunk in part.chunks]).astype(np.float64)
    x_hat = sae_lens_plainly(place / "sae", torch.from_numpy(x.astype(np.float32)))
    expected = 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert done.metrics["explained_variance"] == pytest.approx(expected, rel=1e-5)
    found = json.loads((place / "run/evaluation.json").read_text())
    assert found["explained_variance"] == done.metrics["explained_variance"]
    assert cpsae.evaluate(place / "run").metrics == done.metrics  # by itself: it has a store now


def test_compared_with_a_run_of_ours(place) -> None:
    cpsae.convert(place / "sae", place / "theirs", store=place / "acts.zarr")
    cpsae.convert(write_sae_lens(place / "other", "jumprelu", False), place / "second")
    settings = cpsae.FitSettings(kind="relu", growth="none", steps=3, batch_size=64)
    cpsae.fit(place / "acts.zarr", settings, out=place / "ours", preset="baseline")
    said, on_event = told()
    names = [place / name for name in ("ours", "theirs", "second")]
    compared = cpsae.compare(names, place / "all.svg", on_event=on_event)
    headings, table = compared.table()
    found = {row[0]: dict(zip(headings, row, strict=True)) for row in table}
    assert found["theirs"]["preset"] == "sae-lens (jumprelu)"
    assert (found["theirs"]["steps"], found["ours"]["steps"]) == ("", "3")
    assert found["theirs"]["explained_variance"] and not found["second"]["explained_variance"]
    assert "steps (3 in 1, unknown in 2); the store trained on (" in said[0]
    assert "d (" not in said[0]
    assert compared.as_json()["runs"][1]["steps"] is None
    assert len(compared.groups) == 3  # two of one shape are not one run twice


def test_of_another_width(place) -> None:
    """Told in one line by convert and evaluate, and beside others by compare."""
    narrow = place / "narrow.zarr"
    cpsae.write_store(narrow, rows(500)[:, :8], layer=19)
    with pytest.raises(StoreError, match="d = 8, the autoencoder takes 24; give a store of the m"):
        cpsae.convert(place / "sae", place / "run", store=narrow)
    assert not (place / "run").exists()
    cpsae.convert(place / "sae", place / "run")
    with pytest.raises(StoreError, match="its rows have d = 8, the autoencoder takes 24"):
        cpsae.evaluate(place / "run", narrow)
    settings = cpsae.FitSettings(kind="relu", growth="none", steps=2, batch_size=64)
    cpsae.fit(narrow, settings, out=place / "ours", preset="baseline")
    said, on_event = told()
    cpsae.compare([place / "run", place / "ours"], on_event=on_event)
    assert "these runs differ in d (24 in 1, 8 in 1)" in said[0]


def test_of_another_place(place) -> None:
    other = place / "other.zarr"
    cpsae.write_store(other, rows(500), layer=5)
    said, on_event = told()
    cpsae.convert(place / "sae", place / "run", store=other, on_event=on_event)
    assert any(
        "is of resid_post of block 19, and the store's rows are of r" in text for text in said
    )


def test_what_needs_a_training_says_that_there_was_none(place) -> None:
    run = place / "run"
    cpsae.convert(place / "sae", run)
    with pytest.raises(RunError, match="was converted, and is of no store; name one"):
        cpsae.evaluate(run)
    with pytest.raises(RunError, match="was converted, so it has no steps"):
        cpsae.load(run, step=3)
    with pytest.raises(RunError, match="was converted from another program's; to go on .* --init"):
        cpsae.fit(place / "acts.zarr", cpsae.FitSettings(steps=2, batch_size=64), out=run)


def test_exported_again_with_what_is_known(place) -> None:
    cpsae.convert(place / "sae", place / "run")
    cpsae.export(place / "run", "sae-lens", place / "out")
    metadata = json.loads((place / "out/cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.19.hook_resid_post"
    assert (metadata["model_name"], metadata["seqpos_slice"]) == ("gemma-2-2b", [1, None])
    found = sae_lens_plainly(place / "out", rows())
    assert relative(found, sae_lens_plainly(place / "sae", rows())) < 1e-5


def test_refusals(place) -> None:
    (place / "full").mkdir()
    (place / "full/x").touch()
    with pytest.raises(ExportError, match="is there already and is not empty"):
        cpsae.convert(place / "sae", place / "full")
    with pytest.raises(SettingsError, match="--hook middle: expected one of resid_pre, "):
        cpsae.convert(place / "sae", place / "run", hook="middle")
    with pytest.raises(SettingsError, match="--scaling-factor 0.0: expected a number above 0"):
        cpsae.convert(place / "sae", place / "run", scaling_factor=0.0)
    with pytest.raises(SourceError, match="normalize_activations is none, so that --scaling-fac"):
        cpsae.convert(place / "sae", place / "run", scaling_factor=2.0)
    with pytest.raises(SourceError, match="no such folder"):
        cpsae.convert(place / "none", place / "run")
    assert not (place / "run").exists()
    assert cpsae.load(cpsae.convert(place / "sae", place / "run").path).n_latents == N
    assert D == 24
