"""GGUF files: a tiny one written here, and a real one where CPSAE_REAL_GGUF names it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.quants import quantize
from safetensors.torch import load_file

from cpsae.errors import ModelError
from cpsae.models import TruncatedModel, describe, find_source, load_tokenizer, self_test

CPU = torch.device("cpu")
HEADS, KEY_HEADS = 4, 2
WORDS = [f"w{i}" for i in range(58)]


def write_gguf(folder: Path, file: Path, n_layers: int, quantized: bool = False) -> Path:
    """The tiny Llama of `folder` as llama.cpp's converter writes it."""
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(n_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(61)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<unk>", "<s>", "</s>", *WORDS])
    writer.add_token_types([3, 3, 3] + [1] * len(WORDS))
    writer.add_token_merges(["w 1", "w 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, n_layers)
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = _interleaved(name, tensor.numpy())
        target = names.get_name(name, try_suffixes=(".weight",))
        if quantized and values.ndim == 2 and values.shape[-1] % 32 == 0:
            kind = GGMLQuantizationType.Q4_1
            writer.add_tensor(target, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _interleaved(name: str, values: np.ndarray) -> np.ndarray:
    """llama.cpp rotates neighbouring rows of a head, transformers those half a head apart."""
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return values
    paired = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return np.ascontiguousarray(paired.swapaxes(1, 2).reshape(values.shape))


def test_same_weights_same_fingerprint(saved, tokens, tmp_path) -> None:
    folder = saved("llama", 4)
    source = find_source(str(write_gguf(folder, tmp_path / "tiny.gguf", 4)))
    description = describe(source)
    assert (description.architecture, description.n_layers, description.d) == ("LlamaModel", 4, 32)
    from_gguf = TruncatedModel.load(source, 2, torch.float32, CPU)
    from_folder = TruncatedModel.load(find_source(str(folder)), 2, torch.float32, CPU)
    assert from_gguf.fingerprint() == from_folder.fingerprint()
    assert torch.equal(from_gguf.activations(tokens), from_folder.activations(tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantised_file_is_unpacked(saved, tokens, tmp_path, dtype) -> None:
    source = find_source(str(write_gguf(saved("llama", 4), tmp_path / "q4.gguf", 4, True)))
    truncated = TruncatedModel.load(source, 1, dtype, CPU)
    assert truncated.activations(tokens).dtype == dtype
    assert self_test(truncated, source, tokens).bit_equal


def test_loading_a_gguf_is_quiet(saved, tmp_path, capfd) -> None:
    source = find_source(str(write_gguf(saved("llama", 4), tmp_path / "tiny.gguf", 4)))
    TruncatedModel.load(source, 1, torch.float32, CPU)
    assert capfd.readouterr() == ("", "")


def test_a_file_of_the_same_name_in_the_working_folder(saved, tmp_path, monkeypatch) -> None:
    file = write_gguf(saved("llama", 4), tmp_path / "tiny.gguf", 4)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tiny.gguf").write_bytes(b"GGUF, but another one")
    monkeypatch.chdir(elsewhere)
    TruncatedModel.load(find_source(str(file)), 1, torch.float32, CPU)


@pytest.mark.parametrize("size", [4, 100, 3000, -1000])
def test_damaged_gguf(saved, tmp_path, size) -> None:
    file = write_gguf(saved("llama", 4), tmp_path / "tiny.gguf", 4)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"model .*tiny\.gguf: .* failed") as caught:
        TruncatedModel.load(find_source(str(file)), 3, torch.float32, CPU)
    assert "\n" not in str(caught.value)


def test_not_a_gguf(tmp_path) -> None:
    file = tmp_path / "text.gguf"
    file.write_text("hello")
    with pytest.raises(ModelError, match="is no GGUF file"):
        find_source(str(file))


@pytest.mark.skipif("CPSAE_REAL_GGUF" not in os.environ, reason="CPSAE_REAL_GGUF names no file")
def test_real_gguf() -> None:
    source = find_source(os.environ["CPSAE_REAL_GGUF"])
    description = describe(source)
    layer = 2 * description.n_layers // 3
    truncated = TruncatedModel.load(source, layer, torch.float32, CPU)
    tokenizer = load_tokenizer(source)
    text = "The sea is blue because water absorbs the red part of the light that falls on it. " * 9
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:127]
    first = tokenizer.bos_token_id
    result = self_test(truncated, source, torch.tensor([first if first is not None else 0, *ids]))
    assert result.bit_equal and result.median_norm > 0
