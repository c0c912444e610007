"""Exports for Neuronpedia: its keys, and the values that the autoencoder gives for the tokens."""

import json

import numpy as np
import pytest
import torch

from cpsae.errors import ExportError, SettingsError
from cpsae.stages.load import load
from cpsae.stages.report import report
from cpsae.store import open_store
from cpsae.store.statistics import as_float32


@pytest.fixture(scope="module")
def exported(shown_runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    report(shown_runs / "k=4", folder / "r.html", rows=300, neuronpedia=folder / "np")
    return folder / "np"


def test_batches_hold_what_an_upload_takes(exported) -> None:
    [file] = exported.glob("batch-*.json")
    batch = json.loads(file.read_text())
    assert set(batch) == {"modelId", "source", "features"} and batch["source"] == "2-topk"
    assert 0 < len(batch["features"]) <= 128
    for feature in batch["features"]:
        assert set(feature) == {
            *("index", "density", "topLogits", "bottomLogits", "explanations", "activations")
        }
        assert feature["density"] > 0 and len(feature["activations"]) >= 1
        assert len(feature["topLogits"]) == len(feature["bottomLogits"]) == 10
        assert set(feature["topLogits"][0]) == {"token", "value"}
        for activation in feature["activations"]:
            assert set(activation) == {
                *("tokens", "values", "quantileMin", "quantileMax", "quantileFraction")
            }
            assert len(activation["tokens"]) == len(activation["values"])


def test_values_are_those_of_the_latents(exported, shown_runs, shown_store) -> None:
    store, sae = open_store(shown_store), load(shown_runs / "k=4")
    rows = np.concatenate([as_float32(store.evaluation.rows(c)) for c in store.evaluation.chunks])
    latents = sae.encode(torch.from_numpy(rows)).numpy()
    latents = np.where(latents > 0.01 * latents.max(1, keepdims=True), latents, 0)
    per_context = store.manifest.contexts.rows
    feature = int((latents > 0).sum(0).argmax())
    found = json.loads((exported / "features" / f"{feature}.json").read_text())
    assert set(found) >= {"index", "examples_quantiles", "top_logits", "bottom_logits"}
    assert found["activation_frequency"] == pytest.approx(
        (latents[:, feature] > 0).mean(), rel=1e-3
    )
    top = found["examples_quantiles"][0]
    assert top["quantile_name"] == "Top activations"
    row = int(latents[:, feature].argmax())
    first = row - row % per_context
    example = top["examples"][0]
    assert example["tokens_acts_list"][1:] == pytest.approx(
        latents[first : first + per_context, feature], rel=1e-3, abs=1e-4
    )
    assert example["train_token_ind"] == row - first + 1
    assert example["tokens"][0] == "<bos>" and example["tokens"][1].startswith("w")


def test_it_takes_one_run_a_free_folder_and_a_tokenizer(shown_runs, tmp_path, monkeypatch) -> None:
    with pytest.raises(SettingsError, match="the features of one run"):
        report(shown_runs, tmp_path / "r.html", neuronpedia=tmp_path / "np")
    (tmp_path / "np").mkdir()
    (tmp_path / "np" / "x").touch()
    with pytest.raises(ExportError, match="not empty"):
        report(shown_runs / "k=4", tmp_path / "r.html", rows=30, neuronpedia=tmp_path / "np")
    monkeypatch.setattr("cpsae.stages.store_language.model_at_hand", lambda *_, **__: None)
    with pytest.raises(ExportError, match="name the language model with --model"):
        report(shown_runs / "k=4", tmp_path / "r.html", rows=30, neuronpedia=tmp_path / "new")
    assert not (tmp_path / "r.html").exists() and not (tmp_path / "new").exists()
