"""Random small models of the families whose blocks are built differently, with a tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tiny import texts
from tokenizers import ByteLevelBPETokenizer

BLOCKS, WIDTH = 4, 32
_SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 8}
_OPT = {
    "hidden_size": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "ffn_dim": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_SLIDING = {"sliding_window": 8, "query_pre_attn_scalar": 8}

CONFIGS: dict[str, Callable[[int], Any]] = {
    "gpt2": lambda v: t.GPT2Config(
        vocab_size=v, n_embd=WIDTH, n_layer=BLOCKS, n_head=4, n_positions=64
    ),
    "gpt_neox": lambda v: t.GPTNeoXConfig(vocab_size=v, **_SIZES),
    "llama": lambda v: t.LlamaConfig(vocab_size=v, **_GROUPED),
    "qwen2": lambda v: t.Qwen2Config(vocab_size=v, **_GROUPED),
    "qwen3": lambda v: t.Qwen3Config(vocab_size=v, head_dim=8, **_GROUPED),
    "mistral": lambda v: t.MistralConfig(vocab_size=v, sliding_window=8, **_GROUPED),
    "phi": lambda v: t.PhiConfig(vocab_size=v, **_SIZES),
    "opt": lambda v: t.OPTConfig(vocab_size=v, **_OPT),
    "opt_post_norm": lambda v: t.OPTConfig(vocab_size=v, do_layer_norm_before=False, **_OPT),
    "falcon": lambda v: t.FalconConfig(
        vocab_size=v, hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=4
    ),
    "gemma": lambda v: t.GemmaConfig(vocab_size=v, **_GEMMA),
    "gemma2": lambda v: t.Gemma2Config(vocab_size=v, **_GEMMA, **_SLIDING),
    "gemma3_text": lambda v: t.Gemma3TextConfig(vocab_size=v, **_GEMMA, **_SLIDING),
    "bert": lambda v: t.BertConfig(vocab_size=v, **_SIZES),
    "bloom": lambda v: t.BloomConfig(vocab_size=v, hidden_size=WIDTH, n_layer=BLOCKS, n_head=4),
    "granite": lambda v: t.GraniteConfig(vocab_size=v, residual_multiplier=0.5, **_GROUPED),
}


def save(kind: str, folder: Path, tokenizer_of: Path) -> Path:
    """A model of this family, every weight random, the norms too, with another one's tokenizer."""
    tokenizer = t.AutoTokenizer.from_pretrained(tokenizer_of)
    if kind == "qwen2":  # transformers takes byte-level BPE for it, whatever its files say
        tokenizer = _byte_level(folder)
    config = CONFIGS[kind](len(tokenizer))
    torch.manual_seed(0)
    model = t.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_level(folder: Path) -> Any:
    tokenizer = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>"]
    tokenizer.train_from_iterator(texts(60), vocab_size=400, special_tokens=special)
    tokenizer.save_model(str(folder))
    return t.Qwen2Tokenizer.from_pretrained(folder, eos_token=special[0])


def by_hooks(folder: Path, tokens: torch.Tensor, layer: int) -> dict[str, torch.Tensor]:
    """Rows (B, T, d) of every point of a block of the whole model, by plain hooks on what each
    family calls its parts."""
    model = t.AutoModel.from_pretrained(folder, attn_implementation=_attention(folder)).eval()
    kind, blocks = model.config.model_type, _blocks(model)
    block, seen = blocks[layer], {}

    def keep(name):
        def hook(_module, _inputs, output):
            rows = output[0] if isinstance(output, tuple) else output
            seen[name] = rows.detach().clone().reshape(*tokens.shape, WIDTH)

        return hook

    def keep_input(_module, args, kwargs):
        seen["resid_pre"] = (args[0] if args else kwargs["hidden_states"]).detach().clone()

    block.register_forward_pre_hook(keep_input, with_kwargs=True)
    block.register_forward_hook(keep("resid_post"))
    attention, mlp = _parts(kind, block)
    attention.register_forward_hook(keep("attn_out"))
    mlp.register_forward_hook(keep("mlp_out"))
    with torch.no_grad():
        model(input_ids=tokens)
    return seen


def _attention(folder: Path) -> str:
    return "eager" if "gemma2" in (folder / "config.json").read_text() else "sdpa"


def _blocks(model: Any) -> Any:
    for path in ("h", "layers", "decoder.layers", "encoder.layer"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise AssertionError(type(model))


def _parts(kind: str, block: Any) -> tuple[Any, Any]:
    if kind in ("gemma2", "gemma3_text"):
        return block.post_attention_layernorm, block.post_feedforward_layernorm
    if kind == "bert":
        return block.attention.output.dense, block.output.dense
    if kind == "opt":
        return block.self_attn, block.fc2
    attention = {"gpt2": "attn", "gpt_neox": "attention", "falcon": "self_attention"}
    return getattr(block, attention.get(kind, "self_attn")), block.mlp
