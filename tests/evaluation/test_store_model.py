"""Whether a model is the one that a store was made with, and which of its tokens are special."""

import shutil

import numpy as np
import pytest
import torch
from families import CONFIGS
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cpsae.errors import ModelError, SettingsError, StoreError
from cpsae.evaluation.special_tokens import SpecialTokens
from cpsae.evaluation.store_model import find_model, load_model
from cpsae.stages.evaluate import evaluate
from cpsae.store import open_store, write_store

CPU = torch.device("cpu")


@pytest.fixture
def made(trained):
    return trained("llama")


def copied(made, tmp_path, name="other"):
    return shutil.copytree(made.model, tmp_path / name)


def refused(made, error, match, **options):
    before = (made.run / "evaluation.json").read_bytes()
    with pytest.raises(error, match=match) as caught:
        evaluate(made.run, device="cpu", **options)
    assert "\n" not in str(caught.value)
    assert (made.run / "evaluation.json").read_bytes() == before


def test_a_copy_of_the_model_will_do(made, tmp_path):
    by_name = evaluate(made.run, device="cpu", model="store").content
    by_path = evaluate(made.run, device="cpu", model=str(copied(made, tmp_path))).content
    assert by_name.pop("model")["name"] == str(made.model)
    assert by_path.pop("model")["name"] == str(tmp_path / "other")
    assert by_name == by_path


def test_other_weights_are_refused(made, tmp_path):
    folder = copied(made, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 4] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    text = r"other: is not the one that .* was made with .*up to layer 1 are others; give that one"
    refused(made, ModelError, text, model=str(folder))


def test_another_head_is_another_matter(made, tmp_path):
    """The rows do not hang on what is behind them, so the store cannot tell."""
    folder = copied(made, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 0.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    found = evaluate(made.run, device="cpu", model=str(folder)).content["ce_loss_clean"]
    assert found != evaluate(made.run, device="cpu", model="store").content["ce_loss_clean"]


def test_another_width_and_a_smaller_vocabulary_are_refused(made, tmp_path):
    for key, value, text in (
        ("hidden_size", 64, r"has d = 64, the rows of .* have 32; give the model that it"),
        ("vocab_size", 100, r"has 100 tokens, .* holds token 3\d\d; give the model that it was"),
    ):
        config = CONFIGS["llama"](304)
        setattr(config, key, value)
        config.head_dim = config.hidden_size // 4
        folder = tmp_path / key
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        refused(made, ModelError, text, model=str(folder))


def test_no_such_model(made, tmp_path):
    refused(made, ModelError, "there is no such file or folder", model=str(tmp_path / "a/b/c"))


def test_a_masked_model(trained):
    refused(trained("bert"), ModelError, "masked model", model="store")


def test_a_store_of_arrays(made, tmp_path):
    rows = np.random.default_rng(0).standard_normal((400, 32)).astype(np.float32)
    store = write_store(tmp_path / "arrays.zarr", rows)
    text = "arrays.zarr: was made from arrays and holds no tokens to run .*; leave --model out"
    refused(made, StoreError, text, model="store", store=store)
    text = "arrays.zarr was made from arrays and has no contexts; leave it out"
    refused(made, SettingsError, text, contexts=3, store=store)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"contexts": 0, "model": "store"}, "--contexts: 0 is not a number of contexts"),
        ({"dtype": "float32"}, "--dtype: is of the language model; give --model too"),
        ({"revision": "main"}, "--revision: is of the language model; give --model too"),
        ({"trust_remote_code": True}, "--trust-remote-code: is of the language model"),
        ({"model": "store", "dtype": "int8"}, "--dtype: 'int8' is not one of bfloat16, float16"),
    ],
)
def test_options_that_cannot_apply(made, options, match):
    refused(made, SettingsError, match, **options)


def test_a_model_without_a_tokenizer_is_asked_for_its_config(made, tmp_path):
    folder = copied(made, tmp_path)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    config = AutoConfig.from_pretrained(folder)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 2, [1, 7], None
    config.save_pretrained(folder)
    heard = []
    run = made.run
    found = evaluate(run, device="cpu", model=str(folder), on_event=heard.append).content
    assert found["special_tokens"] == {"ids": [1, 2, 7], "from": "config"}
    [warning] = [event.text for event in heard if getattr(event, "kind", "") == "warning"]
    assert warning.endswith("BOS, EOS and PAD are taken from its config")


def test_special_tokens(made):
    tokenizer = AutoTokenizer.from_pretrained(made.model)
    special = SpecialTokens.of_model(tokenizer, None)
    assert special == SpecialTokens((0, 1, 2), "tokenizer")
    tokens = np.array([[2, 5, 1], [0, 3, 9]], np.int32)
    assert special.among(tokens).tolist() == [[True, False, True], [True, False, False]]
    assert not SpecialTokens((), "store").among(tokens).any()
    store = open_store(made.store)
    assert SpecialTokens.of_store(store.manifest) == SpecialTokens((1, 2), "store")


def test_what_the_store_names(made):
    store = open_store(made.store)
    assert find_model(store, "store").path == str(made.model)
    model = load_model(store, find_model(store, "store"), CPU)
    assert (model.dtype, model.site) == (torch.float32, (1, "resid_post"))
