"""Finding models, describing them from their config alone, and the errors on the way."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from cpsae.device import choose_device, choose_dtype
from cpsae.errors import ModelError
from cpsae.models import describe, find_source, load_tokenizer
from cpsae.models import source as source_module
from cpsae.models.guard import model_errors


def refused(model: str, **options) -> str:
    """The one line that a user reads."""
    with pytest.raises(ModelError) as caught:
        describe(find_source(model, **options))
    text = str(caught.value)
    assert "\n" not in text and model in text
    return text


def test_description_is_exact(saved) -> None:
    description = describe(find_source(str(saved("gemma2", 26))))
    assert (description.architecture, description.n_layers) == ("Gemma2Model", 26)
    assert (description.d, description.embedding_rows, description.context_limit) == (32, 61, 64)
    assert description.soft_capping and description.attention == "eager"
    attention = 32 * 8 * (4 + 2 + 2) + 4 * 8 * 32
    block = attention + 3 * 32 * 48 + 4 * 32  # and four norms
    assert description.block_parameters == (block,) * 26
    assert description.parameters(19) == 61 * 32 + 20 * block + 32  # and the final norm


def test_description_reads_no_weights(saved, tmp_path) -> None:
    shutil.copy(saved("gpt2", 4) / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    description = describe(find_source(str(tmp_path)))
    assert (description.d, description.n_layers, description.soft_capping) == (32, 4, False)
    with pytest.raises(ModelError, match="has 4 blocks, so --layer takes 0 to 3"):
        description.check_layer(4)
    with pytest.raises(ModelError, match="reads at most 64 tokens"):
        description.check_tokens(128)


def test_missing_paths(tmp_path) -> None:
    assert "no such file or folder" in refused(str(tmp_path / "nowhere"))
    assert "no such file or folder" in refused("model.Q4_1.gguf")
    assert "no such file or folder" in refused("./org/name")


def test_folder_without_config(tmp_path) -> None:
    assert "no config.json; check the path" in refused(str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "give the file itself, model.gguf" in refused(str(tmp_path))


def test_pickled_weights_are_never_read(saved, tmp_path) -> None:
    shutil.copy(saved("llama", 4) / "config.json", tmp_path)
    assert "no .safetensors weights" in refused(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    assert "pickled weights are never loaded" in refused(str(tmp_path))


def test_malformed_and_unknown_configs(saved, tmp_path) -> None:
    shutil.copytree(saved("llama", 4), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text("{")
    assert "reading its config failed" in refused(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "from-next-year"}))
    assert "from-next-year" in refused(str(tmp_path))


def test_models_that_cannot_be_cut(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    t5 = {"model_type": "t5", "num_layers": 2, "d_model": 8, "d_kv": 4, "num_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(t5))
    assert "encoder-decoder" in refused(str(tmp_path))
    albert = {"model_type": "albert", "num_hidden_layers": 3, "hidden_size": 8, "vocab_size": 9}
    albert |= {"num_attention_heads": 2, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(albert))
    assert "one nn.ModuleList of 3 blocks (num_hidden_layers); found: " in refused(str(tmp_path))


def test_local_model_has_no_revision(saved) -> None:
    assert "leave --revision out" in refused(str(saved("llama", 4)), revision="main")


def test_unknown_attention(saved) -> None:
    source = find_source(str(saved("llama", 4)))
    with pytest.raises(ModelError, match="building it with attention nonsense failed"):
        describe(source, attention="nonsense")


def test_hub_name_while_offline(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    text = refused("some-organisation/some-model")
    assert "the hub cannot be reached" in text and "HF_HUB_OFFLINE" in text


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (GatedRepoError, "is gated: accept its terms"),
        (RepositoryNotFoundError, "no model on the hub"),
    ],
)
def test_what_the_hub_refuses(monkeypatch, error, advice) -> None:
    def refuse(*_args: object, **_kwargs: object) -> str:
        raise error.__new__(error)  # its constructor wants a response

    monkeypatch.setattr(source_module, "_knock", lambda *_: None)
    monkeypatch.setattr(source_module, "hf_hub_download", refuse)
    assert advice in refused("some-organisation/some-model")


def test_a_hub_out_of_reach_is_asked_once(monkeypatch) -> None:
    asked = []

    def refuse(*arguments: object, **_kwargs: object) -> str:
        asked.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr(source_module.constants, "HF_HUB_OFFLINE", False)  # type: ignore[attr-defined]
    monkeypatch.setattr(source_module, "get_hf_file_metadata", refuse)
    assert "the hub cannot be reached" in refused("some-organisation/some-model")
    assert len(asked) == 1


def test_hub_model_is_pinned_to_its_commit(monkeypatch, tmp_path) -> None:
    config = tmp_path / "snapshots" / "0123abc" / "config.json"
    monkeypatch.setattr(source_module, "_knock", lambda *_: None)
    monkeypatch.setattr(source_module, "hf_hub_download", lambda *_a, **_k: str(config))
    source = find_source("some-organisation/some-model", revision="main")
    assert (source.kind, source.commit) == ("hub", "0123abc")
    assert source.arguments == {"trust_remote_code": False, "revision": "0123abc"}


@pytest.mark.parametrize("kind", ["gemma2", "llama", "gpt2", "bert"])
def test_folder_without_tokenizer(saved, kind) -> None:
    """transformers makes an empty one for three of these."""
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(find_source(str(saved(kind, 26 if kind == "gemma2" else 4))))


def test_tokenizer_of_a_folder(saved, tmp_path) -> None:
    shutil.copytree(saved("llama", 4), tmp_path, dirs_exist_ok=True)
    words = Tokenizer(WordLevel({"<unk>": 0, "blue": 1, "sky": 2}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(find_source(str(tmp_path)))
    assert tokenizer("blue sky")["input_ids"] == [1, 2]


def test_devices_and_types(monkeypatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ModelError, match="device 'cuda:1': torch sees no CUDA GPU"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("cuda", local_rank=3) == torch.device("cuda", 1)
    assert current == [0, 1]
    with pytest.raises(ModelError, match="there are 2 GPUs"):
        choose_device("cuda:2")
    with pytest.raises(ModelError, match="expected auto, cpu, cuda"):
        choose_device("tpu")
    assert choose_dtype("auto", torch.device("cuda", 0)) == torch.bfloat16
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(ModelError, match="dtype 'int8'"):
        choose_dtype("int8", torch.device("cpu"))


class PanicException(BaseException):  # noqa: N818  as pyo3 calls it
    """What a panic of a library in Rust becomes."""


def test_a_panic_is_one_line_and_an_interrupt_stays_one() -> None:
    said = pytest.raises(
        ModelError, match="model x: loading its tokenizer failed .PanicException: "
    )
    with said, model_errors("x", "loading its tokenizer"):
        raise PanicException("range end index out of range")
    with pytest.raises(KeyboardInterrupt), model_errors("x", "loading its tokenizer"):
        raise KeyboardInterrupt
