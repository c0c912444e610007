"""`cpsae convert`: what it prints, JSON, refusals."""

import sys
from pathlib import Path

import pytest
from refusals import assert_refused
from strict_json import read_strictly

import cpsae

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from published_folders import rows, write_sae_lens  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a store and autoencoders in it, which the command is run in."""
    cpsae.write_store(tmp_path / "acts.zarr", rows(2000, seed=1), layer=19, store_dtype="float32")
    write_sae_lens(tmp_path / "sae", "gated", False)
    write_sae_lens(tmp_path / "odd", "jumprelu", normalize_activations="constant_norm_rescale")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table(command, place) -> None:
    done = command("convert", "sae", "--out", "run")
    assert done.code == 0
    title, *table = [" ".join(line.split()) for line in done.out.splitlines()]
    assert title == "run (sae-lens)"
    assert table == ["what gated", "kind gated", "d 24", "n_latents 40"]
    note, after = done.err.splitlines()
    assert note.startswith("decoder rows had norms from ") and after.startswith("next: cpsae eval")
    assert (place / "run/sae.json").exists()


def test_json_with_figures(command, place) -> None:  # noqa: ARG001
    done = command("convert", "sae", "--out", "run", "--store", "acts.zarr", "--json")
    content = read_strictly(done.out)
    assert (content["path"], content["format"], content["kind"]) == ("run", "sae-lens", "gated")
    assert content["l0"] > 0 and "explained_variance" in content
    told = read_strictly(command("info", "run", "--json").out)
    assert told["converted_from"].endswith("sae (sae-lens, gated)")
    assert (told["place"], told["model"]) == ("layer 19, resid_post", "gemma-2-2b")
    assert (told["complete"], told["n_latents"]) == (True, 40)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["empty", "--out", "o"], 1, "empty: holds no autoencoder in a format that is known"),
        (["none", "--out", "o"], 1, "none: no such folder; give the folder of an autoencoder"),
        (["odd", "--out", "o"], 1, "odd: normalize_activations constant_norm_rescale: no kind"),
        (["sae", "--out", "empty/../odd"], 1, "is there already and is not empty"),
        (["sae", "--out", "o", "--store", "none.zarr"], 1, "none.zarr"),
        (["sae"], 2, "Missing option '--out'"),
        (["sae", "--out", "o", "--hook", "x"], 2, "--hook x: expected one of resid_pre, "),
        (["sae", "--out", "o", "--layer", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_refusals(command, place, arguments, code, text) -> None:
    assert_refused(lambda: command("convert", *arguments), place, code, text)


def test_a_converted_run_is_no_recipe(command, place) -> None:
    command("convert", "sae", "--out", "run")
    fit = ["fit", "--store", "acts.zarr", "--recipe", "run/config.json"]
    assert_refused(lambda: command(*fit), place, 1, "is of a converted run, which no settings of")
