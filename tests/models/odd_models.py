"""Tiny models whose blocks are not simply a list that runs from first to last."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t

VOCABULARY = 61
BLOCKS = 6
_ENDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
_TEXT = {**_SIZES, **_ENDS, "vocab_size": VOCABULARY, "num_hidden_layers": BLOCKS}
_GROUPED = {**_TEXT, "num_key_value_heads": 2, "max_position_embeddings": 64}
_VISION = {**_SIZES, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14}
_HYBRID = {
    **_TEXT,
    "num_key_value_heads": 4,
    "layers_block_type": ["linear_attention", "hybrid"] * 3,
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
    "mamba_d_state": 4,
    "n_mamba_heads": 2,
}
_OPT = {
    **_ENDS,
    "vocab_size": VOCABULARY,
    "model_type": "opt",
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
}
_QFORMER = {**_SIZES, "num_hidden_layers": 2, "encoder_hidden_size": 32}


def _llama4() -> Any:
    text = {**_GROUPED, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2}
    vision = {**_VISION, "vision_output_dim": 32, "projector_input_dim": 32}
    config = t.Llama4Config(text_config=text, vision_config=vision)
    return t.Llama4ForConditionalGeneration(config)


def _mllama() -> Any:
    text = {**_GROUPED, "cross_attention_layers": [1, 4]}
    vision = {
        **_VISION,
        "attention_heads": 4,
        "num_global_layers": 1,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [1],
    }
    config = t.MllamaConfig(text_config=text, vision_config=vision)
    return t.MllamaForConditionalGeneration(config)


def _blip(config_class: Any, model_class: Any) -> Any:
    config = config_class(text_config=_OPT, vision_config=_VISION, qformer_config=_QFORMER)
    return model_class(config)


def _gemma3() -> Any:
    text = {**_GROUPED, "head_dim": 8, "sliding_window": 8}
    config = t.Gemma3Config(text_config=text, vision_config=_VISION)
    return t.Gemma3ForConditionalGeneration(config)


def _xlnet() -> Any:
    sizes = {"d_model": 32, "n_layer": BLOCKS, "n_head": 4, "d_inner": 48}
    return t.XLNetLMHeadModel(t.XLNetConfig(vocab_size=VOCABULARY, **sizes))


def _longformer() -> Any:
    sizes = {**_TEXT, "attention_window": 8, "max_position_embeddings": 66}
    return t.LongformerForMaskedLM(t.LongformerConfig(**sizes))


def _longcat() -> Any:
    sizes = {
        "hidden_size": 32,
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 16,
        "num_layers": BLOCKS,
        "num_attention_heads": 4,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "max_position_embeddings": 64,
    }
    return t.LongcatFlashForCausalLM(t.LongcatFlashConfig(vocab_size=VOCABULARY, **_ENDS, **sizes))


def _layoutlmv3() -> Any:
    config = t.LayoutLMv3Config(
        **_TEXT, coordinate_size=6, shape_size=4, input_size=28, patch_size=14
    )
    return t.LayoutLMv3ForTokenClassification(config)


MODELS: dict[str, Callable[[], Any]] = {
    "zamba": lambda: t.ZambaForCausalLM(t.ZambaConfig(**_HYBRID, mamba_dt_rank=2)),
    "zamba2": lambda: t.Zamba2ForCausalLM(
        t.Zamba2Config(**_HYBRID, mamba_headdim=32, num_mem_blocks=1)
    ),
    "zamba2_two_shared": lambda: t.Zamba2ForCausalLM(
        t.Zamba2Config(**_HYBRID, mamba_headdim=32, num_mem_blocks=2)
    ),
    "llama4": _llama4,
    "mllama": _mllama,
    "blip2": lambda: _blip(t.Blip2Config, t.Blip2ForConditionalGeneration),
    "instructblip": lambda: _blip(t.InstructBlipConfig, t.InstructBlipForConditionalGeneration),
    "gemma3": _gemma3,
    "xlnet": _xlnet,
    "longformer": _longformer,
    "longcat": _longcat,
    "layoutlmv3": _layoutlmv3,
}
SHARING = ("zamba", "zamba2", "zamba2_two_shared")


def save(kind: str, folder: Path) -> Any:
    """The model, every weight random, saved in the folder."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.15)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def outputs(kind: str, model: Any, tokens: torch.Tensor) -> list[torch.Tensor | None]:
    """What each block of its text part gives, as (B, T, d), by hooks; None where it does not run.
    Multi-modal wrappers are left out."""
    paths = {
        "xlnet": ("transformer", "layer"),
        "longformer": ("longformer", "encoder.layer"),
        "longcat": ("model", "layers"),
        "layoutlmv3": ("layoutlmv3", "encoder.layer"),
        "blip2": ("language_model", "model.decoder.layers"),
        "instructblip": ("language_model", "model.decoder.layers"),
        "llama4": ("language_model", "model.layers"),
    }
    text_path, blocks_path = paths.get(kind, ("model.language_model", "layers"))
    if kind in SHARING:
        text_path = "model"
    text = model.get_submodule(text_path)
    blocks = text.get_submodule(blocks_path)
    seen: list[torch.Tensor | None] = [None] * len(blocks)

    def keep(number: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            rows = output[0] if isinstance(output, tuple) else output
            rows = rows.transpose(0, 1) if kind == "xlnet" else rows
            seen[number] = rows[:, : tokens.shape[1]].clone()

        return hook

    hooks = [block.register_forward_hook(keep(n)) for n, block in enumerate(blocks)]
    text(input_ids=tokens)
    for hook in hooks:
        hook.remove()
    return seen
