"""The truncated model against the whole one, loaded by transformers alone."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    MptForCausalLM,
    RobertaConfig,
    RobertaModel,
)

from cpsae.errors import ModelError
from cpsae.models import TruncatedModel, find_source
from cpsae.models.truncated import harmless_token

CPU = torch.device("cpu")


def load(folder: Path, layer: int, dtype: torch.dtype = torch.float32) -> TruncatedModel:
    return TruncatedModel.load(find_source(str(folder)), layer, dtype, CPU)


def whole(folder: Path, attention: str, dtype: torch.dtype = torch.float32):
    return AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention)


@torch.no_grad()
def raw_outputs(model, blocks, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What each block gives, tapped by hooks."""
    outputs: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(
            lambda _m, _i, out: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
    model(input_ids=tokens)
    return outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gemma2_equals_hidden_states_bit_for_bit(saved, tokens, dtype) -> None:
    folder = saved("gemma2", 26)
    truncated = load(folder, 19, dtype)
    with torch.no_grad():
        states = whole(folder, "eager", dtype)(input_ids=tokens, output_hidden_states=True)
    found = truncated.activations(tokens)
    assert torch.equal(found, states.hidden_states[20])
    assert found.shape == (2, 16, 32) and found.dtype == dtype and not found.requires_grad
    assert (truncated.d, truncated.layer, truncated.n_layers) == (32, 19, 26)
    assert truncated.attention == "eager"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("layer", [0, 2])
def test_other_architectures_equal_hidden_states(saved, tokens, kind, layer) -> None:
    folder = saved(kind, 4)
    truncated = load(folder, layer)
    with torch.no_grad():
        states = whole(folder, truncated.attention)(input_ids=tokens, output_hidden_states=True)
    assert truncated.attention == "sdpa"
    assert torch.equal(truncated.activations(tokens), states.hidden_states[layer + 1])


def test_language_model_of_a_multi_modal_one(tokens, tmp_path) -> None:
    """Its image encoder has as many blocks, and is dropped."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 4}
    text = sizes | {"vocab_size": 61, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
    config = Gemma3Config(
        text_config=text, vision_config=sizes | {"image_size": 28, "patch_size": 14}
    )
    model = Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    truncated = load(tmp_path, 2)
    with torch.no_grad():
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states
    assert torch.equal(truncated.activations(tokens), states[3])
    assert truncated.description.architecture == "Gemma3TextModel"


def test_last_block_is_raw(saved, tokens) -> None:
    folder = saved("llama", 4)
    model = whole(folder, "sdpa")
    last_entry = model(input_ids=tokens, output_hidden_states=True).hidden_states[-1]
    found = load(folder, 3).activations(tokens)
    assert torch.equal(found, raw_outputs(model, model.layers, tokens)[-1])
    assert not torch.allclose(found, last_entry, atol=1e-2)


def test_only_what_runs_is_kept(saved, tokens) -> None:
    folder = saved("llama", 4)
    truncated = load(folder, 1)
    whole_model = whole(folder, "sdpa")
    expected = [whole_model.embed_tokens, *whole_model.layers[:2]]
    n_bytes = sum(p.numel() * 4 for part in expected for p in part.parameters())
    held = sum(p.numel() * p.element_size() for p in truncated._model.parameters())
    assert held == n_bytes
    assert truncated.activations(tokens.int()).shape == (2, 16, 32)  # any integer type


def test_sliding_window_and_soft_capping_count(saved, tokens) -> None:
    """Without either the tiny model gives something else, so the tests above do see them."""
    folder = saved("gemma2", 26)
    found = load(folder, 3).activations(tokens)
    for change in ({"attn_logit_softcapping": None}, {"sliding_window": 64}):
        model = AutoModel.from_pretrained(folder, attn_implementation="eager", **change)
        with torch.no_grad():
            states = model(input_ids=tokens, output_hidden_states=True).hidden_states
        assert not torch.allclose(found, states[4], atol=1e-4)


def test_sdpa_for_a_soft_capped_model_is_refused(saved) -> None:
    source = find_source(str(saved("gemma2", 26)))
    with pytest.raises(ModelError, match="soft-capping, which sdpa cannot do; take eager"):
        TruncatedModel.load(source, 3, torch.float32, CPU, attention="sdpa")


def test_fingerprint_depends_on_weights_alone(saved, tmp_path) -> None:
    folder = saved("llama", 4)
    original = load(folder, 1).fingerprint()
    resharded = tmp_path / "resharded"
    whole(folder, "sdpa").save_pretrained(resharded, max_shard_size="10KB")  # other key names too
    assert len(list(resharded.glob("*.safetensors"))) > 1
    assert load(resharded, 1).fingerprint() == original
    assert load(folder, 2).fingerprint() != original
    assert load(folder, 1, torch.bfloat16).fingerprint() != original


@pytest.mark.parametrize(("block", "same"), [(1, False), (2, True)])
def test_fingerprint_sees_one_used_weight(saved, tmp_path, block, same) -> None:
    folder = saved("llama", 4)
    edited = edit(folder, tmp_path / "edited", f"model.layers.{block}.mlp.up_proj.weight", 1.0)
    assert (load(edited, 1).fingerprint() == load(folder, 1).fingerprint()) is same


def test_missing_weight_is_refused(saved, tmp_path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    folder = edit(saved("llama", 4), tmp_path / "holed", name, None)
    with pytest.raises(ModelError, match=r"lacks 1 of the .*layers\.1\.mlp\.up_proj\.weight"):
        load(folder, 2)
    load(folder, 0)  # not used there


def test_misshapen_weight_is_refused(saved, tmp_path) -> None:
    folder = tmp_path / "misshapen"
    shutil.copytree(saved("llama", 4), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="loading its weights failed"):
        load(folder, 0)


def test_damaged_safetensors(saved, tmp_path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(saved("llama", 4), folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged or cut short.*fetch it again") as caught:
        load(folder, 0)
    assert "\n" not in str(caught.value)


def test_probe_tries_a_length_that_no_table_limits(tmp_path) -> None:
    """MPT builds its biases for max_seq_len tokens, and no setting of the usual name says so."""
    sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 61, "max_seq_len": 20}
    MptForCausalLM(MptConfig(**sizes)).save_pretrained(tmp_path)
    truncated = load(tmp_path, 1)
    assert truncated.description.context_limit is None
    truncated.probe(20)
    with pytest.raises(ModelError, match="running a context of 21 tokens failed .*fewer --tokens"):
        truncated.probe(21)


def test_probe_takes_no_padding(tmp_path) -> None:
    """All padding lies at one position, so it would fit at any length."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = RobertaConfig(
        vocab_size=61, num_attention_heads=4, max_position_embeddings=20, pad_token_id=0, **sizes
    )
    RobertaModel(config).save_pretrained(tmp_path)
    truncated = load(tmp_path, 1)
    assert truncated.description.context_limit == 19
    truncated.probe(19)
    with pytest.raises(ModelError, match="running a context of 20 tokens failed"):
        truncated.probe(20)


@pytest.mark.parametrize("error", [RuntimeError, IndexError, AssertionError, ZeroDivisionError])
def test_whatever_a_probe_raises_is_one_line(saved, error) -> None:
    truncated = load(saved("llama", 4), 1)

    def refuse(input_ids: torch.Tensor) -> None:
        if input_ids.shape[1] > 30:
            raise error("of no\nhelp")

    truncated._model.register_forward_pre_hook(
        lambda _m, _a, kwargs: refuse(**kwargs), with_kwargs=True
    )
    truncated.probe(30)
    with pytest.raises(
        ModelError, match=rf"of 31 tokens failed \({error.__name__}: of no\)"
    ) as one:
        truncated.probe(31)
    assert "\n" not in str(one.value)


def test_harmless_tokens() -> None:
    config = GPT2Config(bos_token_id=0, eos_token_id=[1, 3], pad_token_id=None)
    assert harmless_token(config, 61) == 2
    assert harmless_token(Gemma3Config(image_token_index=4, boi_token_index=3), 61) > 4
    assert harmless_token(LlamaConfig(bos_token_id=1), 61) == 0


def test_layer_out_of_range_reads_no_weights(saved, tmp_path) -> None:
    folder = tmp_path / "empty_weights"
    shutil.copytree(saved("gemma2", 26), folder)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="layer 40: .* has 26 blocks, so --layer takes 0 to 25"):
        load(folder, 40)


def test_loading_is_quiet_and_puts_the_log_back(saved, capfd, caplog) -> None:
    from transformers.utils import logging as hf_logging

    before = hf_logging.get_verbosity()
    with caplog.at_level(logging.WARNING, logger="transformers"):
        load(saved("llama", 4), 1)
    out, err = capfd.readouterr()
    assert (out, err, caplog.text) == ("", "", "")
    assert hf_logging.get_verbosity() == before


def edit(folder: Path, target: Path, name: str, value: float | None) -> Path:
    """A copy of a model with one number changed, or (None) with one tensor left out."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    if value is None:
        del weights[name]
    else:
        weights[name][0, 0] += value
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target
