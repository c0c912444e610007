"""`cpsae fit --init`: whose settings count, and what it says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_refused
from strict_json import read_strictly

import cpsae

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from published_folders import rows, write_sae_lens  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A store, a finished run and a converted one, in the folder that commands are run in."""
    cpsae.write_store(tmp_path / "acts.zarr", rows(1000, seed=1), layer=19)
    write_sae_lens(tmp_path / "sae", "topk", rescale_acts_by_decoder_norm=True)
    cpsae.convert(tmp_path / "sae", tmp_path / "theirs")
    settings = cpsae.FitSettings(
        kind="topk", k=3, normalize="unit", growth="none", steps=4, batch_size=50, n_latents=30
    )
    cpsae.fit(tmp_path / "acts.zarr", settings, out=tmp_path / "ours", preset="topk")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked_for(command, *arguments):
    shown = read_strictly(command("fit", *arguments, "--print-config", "--json").out)
    return {key: entry["value"] for key, entry in shown.items()}


def test_whose_settings_count(command, place) -> None:  # noqa: ARG001
    own = asked_for(command, "--init", "ours")
    assert (own["kind"], own["k"], own["steps"], own["batch_size"]) == ("topk", 3, 4, 50)
    assert (own["n_latents"], own["normalize"], own["growth"]) == (30, "unit", "none")
    other = asked_for(command, "--init", "ours", "--preset", "topk", "--steps", "7")
    assert (other["k"], other["steps"], other["batch_size"]) == (32, 7, 2048)
    assert (other["n_latents"], other["normalize"]) == (30, "unit")
    theirs = asked_for(command, "--init", "theirs", "--set", "lr=0.1")
    assert (theirs["kind"], theirs["k"], theirs["n_latents"]) == ("topk", 5, 40)
    assert (theirs["normalize"], theirs["lr"]) == ("unit", 0.1)


def test_trained_and_repeated(command, place) -> None:
    small = ["--batch-size", "50", "--steps", "3"]
    done = command("fit", "--init", "theirs", *small, "--out", "run", "--json")
    assert done.code == 0
    config = json.loads((place / "run/config.json").read_text())
    assert config["init"]["path"] == str(place / "theirs") and config["preset"] == "topk"
    again = command("fit", "--recipe", "run/config.json", "--out", "again", "--json")
    assert read_strictly(again.out)["explained_variance"] == pytest.approx(
        read_strictly(done.out)["explained_variance"], abs=0
    )
    weights = [(place / name / "sae.safetensors").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]
    assert np.isfinite(read_strictly(done.out)["mse"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--init", "none"], 1, "none: no such run"),
        (
            ["--init", "ours", "--preset", "relu"],
            1,
            r"its kind is topk, not relu \(--preset topk\)",
        ),
        (["--init", "ours", "--n-latents", "8"], 1, "it has 30 latents, not 8"),
        (["--init", "ours", "--set", "normalize=layer"], 1, "normalised by unit, not layer"),
        (["--init", "ours", "--set", "init=data"], 2, "--set init: is of a run that begins anew"),
        (["--init", "sae"], 1, "sae/config.json: missing; give a folder that `cpsae fit` wrote"),
        (["--out", "theirs"], 1, "theirs: was converted from another program's; to go on from it"),
        (["--init", "theirs", "--out", "ours"], 1, "ours: was begun with other settings"),
    ],
)
def test_refusals(command, place, arguments, code, text) -> None:
    assert_refused(lambda: command("fit", *arguments), place, code, text)
