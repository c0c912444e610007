"""Features of a text, against the whole model run by transformers and the autoencoder by itself."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TOKENS, texts

import cpsae
from cpsae.errors import CorpusError, ModelError, RunError

LAYER = 2


@pytest.fixture(scope="module")
def run(gemma, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    wanted: Any = {
        "model": gemma,
        "dataset": corpus,
        "layer": LAYER,
        "tokens": TOKENS,
        "vectors": 1000,
    }
    store = cpsae.extract(**wanted, store=folder / "acts.zarr", device="cpu", progress=False)
    return cpsae.fit(
        store, out=folder / "run", preset="topk", k=3, steps=5, batch_size=64, device="cpu",
        progress=False,
    ).path  # fmt: skip


def by_transformers(gemma, words):
    """(words, d): what the block gives for each word, in contexts with BOS of at most TOKENS."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gemma, attn_implementation="eager")
    ids = AutoTokenizer.from_pretrained(gemma).convert_tokens_to_ids(words)
    found = []
    with torch.no_grad():
        for first in range(0, len(ids), TOKENS - 1):
            piece = torch.tensor([[2, *ids[first : first + TOKENS - 1]]])
            found.append(model(piece, output_hidden_states=True).hidden_states[LAYER + 1][0, 1:])
    return torch.cat(found)


@pytest.mark.parametrize("n", [1, 7, 15, 16, 40])
def test_rows_and_features_are_those_of_the_whole_model(gemma, run, n) -> None:
    words = texts(1, seed=9)[0].split()[:n]
    expected = by_transformers(gemma, words)
    model = cpsae.load_model(run)
    torch.testing.assert_close(model.activations(" ".join(words)), expected)
    sae = cpsae.load(run)
    found = cpsae.features_of(run, " ".join(words))
    assert found.tokens == model.tokens(" ".join(words)) == words and len(found) == n
    torch.testing.assert_close(found.activations, sae.encode(expected))
    for row, top in zip(sae.encode(expected), found.top(2), strict=True):
        order = sorted(range(len(row)), key=lambda i: -row[i])[:2]
        assert [number for number, _ in top] == [i for i in order if row[i] > 0]


def test_rows_are_the_store_s(run) -> None:
    """In a context of the store, to the rounding of what is stored."""
    from cpsae.training.run_folder import RunFolder

    store = cpsae.open_store(RunFolder(run).read_config()["store"]["path"])
    model = cpsae.load_model(run)
    ids = store.training.tokens(range(3, 4))[0, 1:]
    text = " ".join(model._tokenizer.convert_ids_to_tokens(ids.tolist()))
    expected = store.training[3 * 15 : 4 * 15].astype(np.float32)
    np.testing.assert_allclose(model.activations(text), expected, rtol=0.01, atol=0.01)


def test_a_loaded_model_and_autoencoder_serve_many_texts(run) -> None:
    sae, model = cpsae.load(run), cpsae.load_model(run)
    assert repr(model).startswith("SiteModel(") and "layer 2 resid_post, d = 32" in repr(model)
    found = cpsae.features_of(sae, "w1 w2", model)
    assert torch.equal(found.activations, cpsae.features_of(run, "w1 w2").activations)


def test_the_result_reads_as_a_table(run) -> None:
    found = cpsae.features_of(run, "w1 w22 w3")
    lines = repr(found).splitlines()
    assert lines[0] == "3 tokens, the strongest features of each (feature: activation)"
    assert [line.split()[0] for line in lines[1:]] == ["w1", "w22", "w3"]
    for line, top in zip(lines[1:], found.top(), strict=True):
        assert line.count(":") == len(top) == 3
        assert f"{top[0][0]}: {top[0][1]:.4g}" in line


def test_another_model_can_be_given_and_has_to_fit(gemma, run, tmp_path) -> None:
    copy = shutil.copytree(gemma, tmp_path / "copy")
    same = cpsae.features_of(run, "w1 w2", copy)
    assert torch.equal(same.activations, cpsae.features_of(run, "w1 w2").activations)
    from cpsae.demo.run import MODEL

    with pytest.raises(ModelError, match="has d = 256, the autoencoder takes 32"):
        cpsae.features_of(run, "w1 w2", MODEL)
    with pytest.raises(ModelError, match="no such file or folder"):
        cpsae.features_of(run, "w1 w2", tmp_path / "none")


def test_what_cannot_be_looked_at(run, tmp_path) -> None:
    with pytest.raises(CorpusError, match="gives no token"):
        cpsae.features_of(run, "")
    rows = np.random.default_rng(0).normal(size=(100, 32)).astype(np.float32)
    settings: Any = {"steps": 2, "batch_size": 8, "device": "cpu", "progress": False}
    plain = cpsae.fit(cpsae.write_store(tmp_path / "a", rows), out=tmp_path / "r", **settings)
    with pytest.raises(RunError, match="does not say of which layer"):
        cpsae.features_of(plain, "w1")
    layered = cpsae.write_store(tmp_path / "b", rows, layer=LAYER)
    nameless = cpsae.fit(layered, out=tmp_path / "s", **settings)
    with pytest.raises(ModelError, match="names no language model; give one"):
        cpsae.features_of(nameless, "w1")
    with pytest.raises(RunError):
        cpsae.features_of(tmp_path / "nothing", "w1")
