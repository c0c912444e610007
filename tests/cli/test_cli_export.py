"""`cpsae export`: what it prints, JSON, refusals."""

import sys
from pathlib import Path

import pytest
from refusals import assert_refused
from strict_json import read_strictly

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from small_runs import make_run  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with runs in it, which the command is run in."""
    make_run(tmp_path / "run")
    make_run(tmp_path / "paper", "competitive", "layer")
    make_run(tmp_path / "lca", "lca-batchtopk")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table(command, place) -> None:
    done = command("export", "run", "--to", "sae-lens", "--out", "out")
    assert (done.code, done.err) == (0, "")
    title, *rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert title == "out (sae-lens)"
    assert rows == [
        "what jumprelu",
        "d_in 24",
        "n_latents 31",
        "latent_scale 37.5",
        'load sae_lens.SAE.load_from_disk("out")',
    ]
    assert (place / "out/cfg.json").exists()


def test_json_and_notes(command, place) -> None:  # noqa: ARG001
    done = command("export", "paper", "--to", "sae-lens", "--out", "out", "--json")
    content = read_strictly(done.out)
    assert content["files"] == ["README.md", "cfg.json", "sae_weights.safetensors"]
    assert (content["what"], content["path"]) == ("cpsae_softmax", "out")
    epsilon, classes = done.err.splitlines()
    assert epsilon.startswith("normalize=layer: SAELens adds 1e-5 ")
    assert classes.startswith("SAELens has no architecture like competitive: `import cpsae.interop")
    assert content["notes"] == [epsilon, classes]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["empty", "--to", "sae-lens", "--out", "o"],
            1,
            "empty/config.json: missing; give a folder",
        ),
        (["none", "--to", "sae-lens", "--out", "o"], 1, "none: no such run; give a folder"),
        (["run", "--to", "sae-lens", "--out", "lca"], 1, "lca: is there already and is not empty"),
        (
            ["run", "--to", "sparsify", "--out", "o"],
            1,
            r"kind 'batchtopk' \(jumprelu at inference\)",
        ),
        (
            ["lca", "--to", "dictionary-learning", "--out", "o"],
            1,
            "kind 'lca-batchtopk' .*take --to",
        ),
        (
            ["paper", "--to", "saebench", "--out", "o"],
            1,
            "normalize=layer: .*unit, sqrt-d and none",
        ),
        (["run", "--to", "onnx", "--out", "o"], 2, "'onnx' is not one of 'sae-lens', "),
        (["run", "--to", "sae-lens"], 2, "--out: is missing; give a folder to write, or --push"),
        (["run", "--to", "sae-lens", "--out", "o", "--private"], 2, "--private: .*give --push too"),
        (["run", "--to", "sae-lens", "--push", "ada"], 2, "--push ada: expected ORG/NAME, or"),
        (["run", "--to", "sae-lens", "--push", "a/b/../c"], 2, "--push a/b/../c: expected ORG"),
        (["run", "--to", "sae-lens", "--out", "o", "--step", "3"], 1, "has no step 3 to load"),
    ],
)
def test_refusals(command, place, arguments, code, text) -> None:
    assert_refused(lambda: command("export", *arguments), place, code, text)
