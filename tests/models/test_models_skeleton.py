"""Models whose class a repository ships, from the code in a local folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import dynamic_module_utils

from cpsae.errors import ModelError
from cpsae.models import TruncatedModel, describe, find_source, self_test

CPU = torch.device("cpu")
BLOCKS, WIDTH, VOCABULARY, ROWS = 3, 16, 37, 64

CODE = """
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput


class OwnConfig(PreTrainedConfig):
    model_type = "own-of-this-test"

    def __init__(self, **given):
        self.num_hidden_layers = given.pop("num_hidden_layers", 3)
        self.hidden_size = given.pop("hidden_size", 16)
        self.vocab_size = given.pop("vocab_size", 37)
        super().__init__(**given)


class OwnBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, hidden_states):
        return hidden_states + torch.tanh(self.mix(hidden_states.cumsum(1)))


class OwnBase(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "body"
    _supports_sdpa = True


def body(cls, config):
    cls.embed_tokens = nn.Embedding(64 * (config.vocab_size // 64 + 1), config.hidden_size)
    blocks = [OwnBlock(config.hidden_size) for _ in range(config.num_hidden_layers)]
    cls.layers = nn.ModuleList(blocks)


def run(self, input_ids):
    states = [self.embed_tokens(input_ids)]
    for layer in self.layers:
        states.append(layer(states[-1]))
    return BaseModelOutput(last_hidden_state=states[-1], hidden_states=tuple(states))


class OwnModel(OwnBase):
    def __init__(self, config):
        super().__init__(config)
        body(self, config)
        self.post_init()

    def forward(self, input_ids, **_):
        return run(self, input_ids)


class Plain(nn.Module):
    def __init__(self, config):
        super().__init__()
        body(self, config)

    def forward(self, input_ids):
        return run(self, input_ids)


class OwnForCausalLM(OwnBase):
    Body = OwnModel

    def __init__(self, config):
        super().__init__(config)
        self.body = self.Body(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.body.embed_tokens

    def forward(self, input_ids, **_):
        output = self.body(input_ids)
        logits = self.head(output.last_hidden_state)
        return CausalLMOutput(logits=logits, hidden_states=output.hidden_states)


class PlainForCausalLM(OwnForCausalLM):
    Body = Plain
"""


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """shipped(auto_map) gives the folder of a model with its code, and the model that was saved."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))

    def make(auto_map: dict[str, str], saved: str) -> tuple[Path, Any]:
        folder = tmp_path / "-".join(["repository", *auto_map]).lower()
        folder.mkdir()
        (folder / "modeling_own.py").write_text(CODE)
        offered = {"AutoConfig": "modeling_own.OwnConfig", **auto_map}
        config = {"model_type": "own-of-this-test", "auto_map": offered}
        (folder / "config.json").write_text(json.dumps(config))
        torch.manual_seed(0)
        # not by an Auto class, which would remember it
        model_class = dynamic_module_utils.get_class_from_dynamic_module(saved, str(folder))
        model = model_class(model_class.config_class()).eval()
        model.save_pretrained(tmp_path / "weights")
        shutil.copy(tmp_path / "weights" / "model.safetensors", folder)
        return folder, model

    return make


KINDS = [
    ({"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}, "OwnModel"),
    ({"AutoModelForMaskedLM": "modeling_own.OwnForCausalLM"}, "OwnModel"),
    ({"AutoModelForCausalLM": "modeling_own.PlainForCausalLM"}, "PlainForCausalLM"),
    (
        {
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
            "AutoModel": "modeling_own.OwnModel",
        },
        "OwnModel",
    ),
]


@pytest.mark.parametrize(("auto_map", "architecture"), KINDS)
def test_code_that_offers_a_head_alone(shipped, tokens, auto_map, architecture) -> None:
    folder, model = shipped(auto_map, next(iter(auto_map.values())))
    source = find_source(str(folder), trust_remote_code=True)
    description = describe(source)
    assert (description.architecture, description.n_layers) == (architecture, BLOCKS)
    assert (description.d, description.embedding_rows) == (WIDTH, ROWS)
    ids = tokens % VOCABULARY
    with torch.no_grad():
        states = model(ids).hidden_states
    for layer in range(BLOCKS):
        truncated = TruncatedModel.load(source, layer, torch.float32, CPU)
        assert torch.equal(truncated.activations(ids), states[layer + 1])
        assert self_test(truncated, source, ids).bit_equal


@pytest.mark.parametrize(("auto_map", "architecture"), KINDS)
def test_code_that_is_not_trusted(shipped, auto_map, architecture) -> None:
    folder, _ = shipped(auto_map, next(iter(auto_map.values())))
    with pytest.raises(ModelError, match="take --trust-remote-code if you trust it") as caught:
        describe(find_source(str(folder)))
    assert "\n" not in str(caught.value) and architecture not in str(caught.value)


def test_code_that_offers_no_language_model(shipped) -> None:
    auto_map = {"AutoModelForImageClassification": "modeling_own.OwnForCausalLM"}
    folder, _ = shipped(auto_map, "modeling_own.OwnForCausalLM")
    with pytest.raises(ModelError, match="nor its own code offers AutoModel, ") as caught:
        describe(find_source(str(folder), trust_remote_code=True))
    assert "\n" not in str(caught.value)


def test_a_class_that_unpickles_is_never_taken(tmp_path) -> None:
    """That of Qwen2.5-Omni reads voices from a pickled file beside the weights."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    name = "Qwen2_5OmniForConditionalGeneration"
    config: dict[str, Any] = {"model_type": "qwen2_5_omni", "architectures": [name]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="a Qwen2_5OmniConfig; take a language model"):
        describe(find_source(str(tmp_path)))
