"""Small models with random weights of every family that transformers has, for model_families.py.

The default config of a family is shrunk by the names of its settings; where that is not enough,
OVERRIDES says what else it takes.
"""

import re
from typing import Any

import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto import modeling_auto as auto

VOCABULARY = 128
WIDTH, HEADS, KEY_HEADS, HEAD = 64, 4, 2, 16
BLOCKS, OTHER_BLOCKS = 6, 2
"""Of the text part, and of parts for images and sound."""
LARGEST = 280_000_000
"""Parameters that a small model may have."""

HEADS_OF = ("MULTIMODAL_LM", "IMAGE_TEXT_TO_TEXT", "CAUSAL_LM", "MASKED_LM", "PRETRAINING")
TEXTS = (*HEADS_OF[:4], "TEXT_ENCODING", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")

SIZES: list[tuple[str, int]] = [
    (r"(hidden_size|d_model|n_embd|dim|model_dim|embed_dim|emb_dim|hidden_dim|width)", WIDTH),
    (r"(embedding_size|word_embed_proj_dim|embedding_dim|lru_width|true_hidden_size)", WIDTH),
    (r"(attention_hidden_size|d_embed|mm_hidden_size|proj_dim|projection_dim)", WIDTH),
    (r"(out_hidden_size|output_size|output_dim|text_hidden_size|vision_hidden_size)", WIDTH),
    (r"(cross_attention_hidden_size|encoder_hidden_size|mm_embed_dim|image_embed_dim)", WIDTH),
    (r".*(intermediate|ffn|feed_forward|mlp).*_?(size|dim)(_mlp)?", 96),
    (r"(n_inner|inner_dim|d_ff|d_inner|dim_ff|mlp_hidden_size|ff_dim)", 96),
    (r"(num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers)", BLOCKS),
    (r"(depth|num_block|num_blocks|num_decoder_layers|num_encoder_layers)", BLOCKS),
    (r"(num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads)", HEADS),
    (r"(num_key_value_heads|num_kv_heads|n_head_kv|multi_query_group_num)", KEY_HEADS),
    (r"(.*_num_key_value_heads|num_attention_groups)", KEY_HEADS),
    (r"(rotary_dim)", 8),
    (r"(qk_head_dim)", 2 * HEAD),
    (r"(head_dim|attention_head_size|global_head_dim|d_head|d_kv|kv_channels|.*_head_dim)", HEAD),
    (r"(q_lora_rank|kv_lora_rank|o_lora_rank|.*_lora_rank|.*_low_rank_dim)", 16),
    (r"(num_.*experts|n_routed_experts|num_experts|moe_num_experts)", 4),
    (r"(.*experts_per_tok(en)?|.*top_?k(_experts)?|moe_k|num_selected_experts)", 2),
    (r"(n_group|topk_group|num_expert_group|n_shared_experts|moe_num_shared_experts)", 1),
    (r".*vocab_size(_per_layer_input)?", VOCABULARY),
    (r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length)", 64),
    (r"(seq_length|max_seq_length|model_max_length|max_target_positions|context_length)", 64),
    (r"(max_source_positions|max_context_length)", 64),
    (r"(sliding_window(_size)?|attention_chunk_size|local_attention|window_size)", 8),
    (r"(state_size|d_state|.*_d_state|ssm_state_size)", HEAD),
    (r"(mamba_num_heads|mamba_n_heads|n_mamba_heads)", 8),
    (r"(mamba_d_head|mamba_head_dim|mamba_headdim)", HEAD),
    (r"(mamba_d_ssm)", 2 * WIDTH),
    (r"(n_groups|mamba_n_groups|mamba_ngroups)", 2),
    (r"(chunk_size|mamba_chunk_size|time_step_rank)", 8),
    (r"(linear_num_key_heads)", KEY_HEADS),
    (r"(linear_num_value_heads|lightning_n?_?heads?)", HEADS),
    (r"(image_size|input_size|img_size)", 28),
    (r"(hidden_size_per_layer_input|laurel_rank)", HEAD),
]
OTHER = re.compile(r"(vision|audio|visual|image|encoder|speech|sam|qformer|vq|code|depth|talker)")
SPECIAL = re.compile(r".*(_token_id|_token_index|_id|_ids|_index|_token)$|.*_token_id.*")

UNSET = {
    "head_dim": HEAD,
    "num_key_value_heads": KEY_HEADS,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "sliding_window": 8,
    "n_shared_experts": 1,
}
"""What a default config may leave at None, though its model needs it."""
SECTIONS = {"mrope_section": [4, 2, 2], "rope_type": "default", "rope_theta": 10000.0}
HALF = {**SECTIONS, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
INDEXER = {
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
    "indexer_n_heads": HEADS,
    "indexer_kv_heads": 1,
    "indexer_head_dim": HEAD,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    **{
        name: {"text_config.rope_parameters": SECTIONS}
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni_thinker", "paddleocr_vl")
    },
    **{name: {"rope_parameters": SECTIONS} for name in ("qwen2_vl_text", "qwen2_5_vl_text")},
    **{
        name: {"text_config.rope_parameters": HALF}
        for name in ("glm4v", "glm46v", "glm4v_moe", "glm_ocr", "glmga")
    },
    **{
        name: {"rope_parameters": HALF}
        for name in ("glm4v_text", "glm4v_moe_text", "glm_ocr_text", "glm_image_text")
    },
    "bamba": {"attn_layer_indices": [1, 4]},
    **{
        name: {f"{part}rope_parameters.full_attention": SECTIONS}
        for name, part in (("cohere_compass", "text_config."), ("cohere_compass_text", ""))
    },
    "ernie4_5_vl_moe": {"text_config.rope_parameters": {**SECTIONS, "mrope_section": [3, 3, 2]}},
    "hunyuan_vl": {"text_config.rope_parameters": {**SECTIONS, "mrope_section": [2, 2, 2, 2]}},
    "hunyuan_vl_text": {"rope_parameters": {**SECTIONS, "mrope_section": [2, 2, 2, 2]}},
    "qwen2_5_omni": {"thinker_config.text_config.rope_parameters": SECTIONS},
    "bailing_hybrid": {"num_experts_per_token": 2, "num_experts_per_tok": 2},
    "kimi_linear": {"num_experts_per_token": 2, "num_experts_per_tok": 2},
    "chameleon": {"vocabulary_map": {"<image>": 100}, "vq_config.num_embeddings": 16},
    "emu3": {"vocabulary_map": {"<image>": 100, "<|extra_200|>": 101}},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", *["sparse"] * 5]},
    "deepseek_vl_hybrid": {"high_res_vision_config.global_attn_indexes": [0, 1]},
    "dbrx": {
        "attn_config.rope_theta": 10000.0,
        "attn_config.kv_n_heads": KEY_HEADS,
        "attn_config.clip_qkv": 8.0,
    },
    "dory": {"n_input_layers": 2, "n_recurrent_layers": 2, "n_output_layers": 2},
    "dots3_note_text": {"head_dim": 2 * HEAD},
    "diffusion_gemma": {"text_config.num_experts": 4, "text_config.top_k_experts": 2},
    "esm": {"pad_token_id": 1, "mask_token_id": 3},
    "esmc": {"vocab_size": VOCABULARY},
    "falcon_h1": {"mamba_d_head": HEAD},
    "fun_asr_nano": {"adaptor_config.intermediate_size": 16},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "intermediate_size": [96] * BLOCKS,
        "activation_sparsity_pattern": [0.95, 0.95, 0.95, 0.0, 0.0, 0.0],
    },
    "glm5_next": {"text_config.index_topk": 32},
    "glm5_next_text": {"index_topk": 32},
    **{
        name: {f"{part}{key}": value for key, value in INDEXER.items()}
        for name, part in (("qwen4_exp", "text_config."), ("qwen4_exp_text", ""))
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 3},
    "layoutlmv3": {"coordinate_size": 12, "shape_size": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 3},
    "lilt": {"hidden_size": 96},
    "mamba2": {"num_heads": 8},
    "mistral4": {"head_dim": 2 * HEAD},
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32},
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [32, 32],
    },
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid"] * 3,
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * HEAD,
        "mamba_dt_rank": 4,
        "n_mamba_heads": 2,
        "num_key_value_heads": HEADS,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 3,
        "hybrid_layer_ids": [1, 3, 5],
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * HEAD,
        "num_query_groups": HEADS,
        "adapter_rank": 8,
    },
}
"""What a family's config takes beside the sizes; a dot leads into a part of it."""
CLASSES = {"shieldgemma2": "ShieldGemma2ForImageClassification"}
"""What checkpoints are of, where the mappings name another class."""


def families() -> list[str]:
    """Every model type of transformers that a text goes into."""
    known: set[str] = set()
    for kind in TEXTS:
        known |= set(getattr(auto, f"MODEL_FOR_{kind}_MAPPING_NAMES"))
    known |= {name for name in auto.MODEL_MAPPING_NAMES if name.endswith("_text")}
    return sorted(known)


def class_of(family: str) -> str:
    """The class of its model with a head, else the one without."""
    if family in CLASSES:
        return CLASSES[family]
    for kind in HEADS_OF:
        found = getattr(auto, f"MODEL_FOR_{kind}_MAPPING_NAMES").get(family)
        if found:
            return found if isinstance(found, str) else found[0]
    found = auto.MODEL_MAPPING_NAMES[family]
    return found if isinstance(found, str) else found[0]


def build(family: str) -> Any:
    """A model whose every weight is random, the norms too. Raises what transformers raises, and
    ValueError where it stays too large."""
    config = small_config(family)
    model_class = getattr(transformers, class_of(family), None)
    if model_class is None:
        raise ValueError(f"transformers names {class_of(family)}, but has none")
    with torch.device("meta"):
        parameters = sum(p.numel() for p in model_class(config).parameters())
    if parameters > LARGEST:
        raise ValueError(f"the shrunk config still makes {parameters:,} parameters")
    torch.manual_seed(0)
    model = model_class(small_config(family)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape) * 0.1
                norm = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(1 + noise if norm else noise)
    return model.float()


def small_config(family: str) -> Any:
    """The default config of a family, shrunk."""
    default = AutoConfig.for_model(family)
    ids = iter(range(VOCABULARY - 1, 0, -1))
    values = _shrink(default.to_dict(), False, ids)
    for path, value in OVERRIDES.get(family, {}).items():
        *parts, last = path.split(".")
        place = values
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return type(default)(**values)


def _shrink(values: dict[str, Any], other: bool, ids: Any) -> dict[str, Any]:
    layers = next(
        (
            values[n]
            for n in ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
            if n in values
        ),
        None,
    )
    small: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key)
        if name in ("transformers_version", "architectures", "id2label", "label2id"):
            continue
        if name == "per_layer_config":
            kept = {k: v for k, v in value.items() if int(k) < BLOCKS} if value else value
            small[name] = kept and {k: _shrink(v, other, ids) for k, v in kept.items()}
        elif isinstance(value, dict):
            if "rope" in name:
                small[name] = _rope(value)
            else:
                small[name] = _shrink(value, other or bool(OTHER.search(name)), ids)
        elif isinstance(value, list):
            small[name] = _list(name, value, layers, other)
        else:
            small[name] = _number(name, value, values, other, ids)
    return small


def _number(name: str, value: Any, values: dict[str, Any], other: bool, ids: Any) -> Any:
    if value is None:
        return UNSET.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if SPECIAL.fullmatch(name):
        return next(ids) if value >= VOCABULARY - 40 else value
    for pattern, size in SIZES:
        if re.fullmatch(pattern, name):
            if size == BLOCKS and pattern.startswith(("(num_hidden", "(depth")) and other:
                return min(value, OTHER_BLOCKS)
            if size == KEY_HEADS and value == values.get("num_attention_heads"):
                return HEADS
            return min(value, size) if value > 0 else value
    return value


def _list(name: str, value: list[Any], layers: Any, other: bool) -> list[Any] | None:
    """Of one entry a block those of some blocks, so that each kind is there; of numbers of blocks
    those that are left."""
    kept = OTHER_BLOCKS if other else BLOCKS
    if isinstance(layers, int) and len(value) == layers > kept:
        first = {repr(entry): number for number, entry in reversed(list(enumerate(value)))}
        chosen = sorted(first.values())[:kept]
        rest = [number for number in range(layers) if number not in chosen]
        return [value[number] for number in sorted(chosen + rest[: kept - len(chosen)])]
    if re.search(r"layer|idx|ind(ex|ice)", name) and all(isinstance(v, int) for v in value):
        return [number for number in value if number < kept]
    return value


def _rope(values: dict[str, Any]) -> dict[str, Any]:
    small = dict(values)
    for name, value in values.items():
        if isinstance(value, dict):
            small[name] = _rope(value)
        if name == "mrope_section":
            small[name] = [4, 2, 2]
        if name == "original_max_position_embeddings":
            small[name] = 32
        if name in ("short_factor", "long_factor"):
            small[name] = [1.0] * (HEAD // 2)
    return small
