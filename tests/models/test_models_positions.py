"""The most tokens of a context, against running contexts of every length."""

from typing import Any

import pytest
import torch
import transformers as t

from cpsae.errors import ModelError
from cpsae.models import describe, find_source

VOCABULARY, ROWS, LONGEST = 61, 20, 30
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_BERT = {**_SIZES, "intermediate_size": 48, "max_position_embeddings": ROWS}
_OPT = {**_SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": ROWS}

BEHIND_PADDING: dict[str, tuple[Any, dict[str, Any]]] = {
    "roberta": (t.RobertaConfig, _BERT),
    "roberta_padding_3": (t.RobertaConfig, {**_BERT, "pad_token_id": 3}),
    "roberta_padding_0": (t.RobertaConfig, {**_BERT, "pad_token_id": 0}),
    "roberta_prelayernorm": (t.RobertaPreLayerNormConfig, _BERT),
    "xlm_roberta": (t.XLMRobertaConfig, _BERT),
    "xlm_roberta_xl": (t.XLMRobertaXLConfig, _BERT),
    "camembert": (t.CamembertConfig, _BERT),
    "data2vec_text": (t.Data2VecTextConfig, _BERT),
    "esm": (
        t.EsmConfig,
        {**_BERT, "pad_token_id": 1, "mask_token_id": 2, "position_embedding_type": "absolute"},
    ),
    "mpnet": (t.MPNetConfig, _BERT),
    "longformer": (t.LongformerConfig, {**_BERT, "attention_window": 4}),
    "ibert": (t.IBertConfig, _BERT),
    "luke": (t.LukeConfig, {**_BERT, "entity_vocab_size": 9, "entity_emb_size": 8}),
}
FROM_THE_BEGINNING: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (t.BertConfig, {**_BERT, "pad_token_id": 3}),
    "distilbert": (
        t.DistilBertConfig,
        {"dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": ROWS},
    ),
    "gpt2": (t.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": ROWS}),
    "gptj": (
        t.GPTJConfig,
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": ROWS, "rotary_dim": 8},
    ),
    "opt": (t.OPTConfig, _OPT),
    "biogpt": (t.BioGptConfig, _BERT),
    "yoso": (t.YosoConfig, _BERT),
    "nystromformer": (
        t.NystromformerConfig,
        {**_BERT, "num_landmarks": 4, "segment_means_seq_len": 4},
    ),
    "clip_text": (t.CLIPTextConfig, _BERT),
}


def longest_that_runs(model: Any) -> int:
    """By running every length."""
    runs = 0
    for length in range(1, LONGEST + 1):
        try:
            with torch.no_grad():
                model(input_ids=torch.full((1, length), 7))
        except (IndexError, RuntimeError, ValueError):
            return runs
        runs = length
    return runs


def small(config_class: Any, sizes: dict[str, Any], folder: Any) -> Any:
    torch.manual_seed(0)
    config = config_class(vocab_size=VOCABULARY, **{"bos_token_id": 0, "eos_token_id": 2, **sizes})
    model = t.AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", [*BEHIND_PADDING, *FROM_THE_BEGINNING])
def test_the_limit_is_the_longest_context_that_runs(kind, tmp_path) -> None:
    model = small(*{**BEHIND_PADDING, **FROM_THE_BEGINNING}[kind], tmp_path)
    longest = longest_that_runs(model)
    assert longest < LONGEST and (longest < ROWS) is (kind in BEHIND_PADDING)
    description = describe(find_source(str(tmp_path)))
    assert description.context_limit == longest
    description.check_tokens(longest)
    with pytest.raises(ModelError, match=f"tokens {longest + 1}: .* reads at most {longest} "):
        description.check_tokens(longest + 1)


def test_positions_that_a_config_alone_limits(tmp_path) -> None:
    """Rotary ones run on, but the model was not made for it."""
    sizes = {**_BERT, "pad_token_id": 1, "mask_token_id": 2, "position_embedding_type": "rotary"}
    model = small(t.EsmConfig, sizes, tmp_path)
    assert longest_that_runs(model) == LONGEST
    assert describe(find_source(str(tmp_path))).context_limit == ROWS


@pytest.mark.parametrize(
    ("config_class", "sizes"),
    [
        (t.XLNetConfig, {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
        (t.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
        (t.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    ],
)
def test_models_without_a_limit(config_class, sizes, tmp_path) -> None:
    """XLNet's config says -1."""
    assert longest_that_runs(small(config_class, sizes, tmp_path)) == LONGEST
    description = describe(find_source(str(tmp_path)))
    assert description.context_limit is None
    description.check_tokens(100_000)


def test_places_on_a_page_are_no_positions(tmp_path) -> None:
    sizes = {**_BERT, "max_2d_position_embeddings": 8}
    model = small(t.LayoutLMConfig, sizes, tmp_path)
    assert longest_that_runs(model) == ROWS
    assert describe(find_source(str(tmp_path))).context_limit == ROWS
