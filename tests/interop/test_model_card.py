"""README.md of an export: what it states is what the run's files say, and its Python loads it."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from small_runs import make_run

import cpsae
from cpsae.interop import TARGETS


def card_of(run, target, out, **how) -> str:
    cpsae.export(run, target, out, **how)
    return (out / "README.md").read_text(encoding="utf-8")


def rows(card: str) -> dict[str, list[str]]:
    found = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {first.strip("`"): rest for first, *rest in found}


@pytest.mark.parametrize("target", TARGETS)
def test_it_states_what_is_known(tmp_path, target) -> None:
    run = make_run(tmp_path / "run", "topk")
    (run / "evaluation.json").write_text(
        json.dumps(
            {
                "explained_variance": 0.78125,
                "explained_variance_ci": [0.75, 0.8125],
                "l0": 5.0,
                "ce_loss_score": None,
                "evaluation_rows": 4064,
                "evaluation_contexts": 32,
            }
        )
    )
    card = card_of(run, target, tmp_path / "out")
    found = rows(card)
    assert found["explained_variance"][:2] == ["0.7812", "0.75 to 0.8125"]
    assert found["l0"][0] == "5" and "ce_loss_score" not in found
    assert "Measured on 4,064 held-out rows of 32 contexts." in card
    assert found["model"] == ["google/gemma-2-2b at revision c5ebcd40"]
    assert found["place"] == ["blocks.19.hook_resid_post"]
    assert found["context"] == ["128 tokens, BOS in front, the first position left out"]
    about = yaml.safe_load(card.split("---\n")[1])
    assert about["base_model"] == "google/gemma-2-2b"
    assert {"sae-lens": "saelens", "sparsify": "sparsify"}.get(target) in (
        None,
        about["library_name"],
    )


def test_where_the_figures_are_from(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_text(json.dumps({"explained_variance": 0.5, "steps": 1000}))
    card = card_of(run, "safetensors", tmp_path / "out")
    assert "Measured on held-out rows, at the end of training." in card
    assert rows(card)["explained_variance"][0] == "0.5"


def test_names_are_text(tmp_path) -> None:
    """A path is not told, and neither HTML nor a column can be put in."""
    dataset = {"id": "/home/ada/se|cret <img src=x>.jsonl", "split": "train\nevil"}
    run = make_run(tmp_path / "run", model={"id": "/home/ada/m/model.gguf"}, dataset=dataset)
    card = card_of(run, "safetensors", tmp_path / "out")
    assert "ada" not in card and "<img" not in card
    assert r"| text | se\|cret &lt;img src=x&gt;.jsonl, split train evil |" in card
    assert not {"base_model", "datasets"} & yaml.safe_load(card.split("---\n")[1]).keys()
    named = card_of(run, "safetensors", tmp_path / "named", model="ada/model")
    assert yaml.safe_load(named.split("---\n")[1])["base_model"] == "ada/model"


def test_its_python_runs(tmp_path) -> None:
    card = card_of(make_run(tmp_path / "run"), "safetensors", tmp_path / "out")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1] + "print(sorted(sae))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert done.stdout == "['W_dec', 'W_enc', 'b_dec', 'b_enc', 'threshold']\n", done.stderr
