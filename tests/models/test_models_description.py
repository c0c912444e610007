"""Sizes that a config states otherwise than the model has them."""

from typing import Any

import odd_models
import pytest
import torch
import transformers as t

from cpsae.errors import ModelError
from cpsae.models import describe, find_source

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_BERT = {**_SIZES, "intermediate_size": 48}
_VISION = {**_BERT, "image_size": 28, "patch_size": 14}
_GEMMA = {**_BERT, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 61}


class Padded(t.BertModel):
    """Rounds its table up to a multiple of 64, as some code that repositories ship does."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embeddings.word_embeddings = torch.nn.Embedding(64, config.hidden_size)


def saved(model: Any, folder: Any) -> Any:
    model.save_pretrained(folder)
    return describe(find_source(str(folder)))


def test_embedding_rows_are_those_of_the_table(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(t.AutoModel._model_mapping._extra_content, t.BertConfig, Padded)
    config = t.BertConfig(vocab_size=61, **_BERT)
    assert saved(Padded(config), tmp_path).embedding_rows == 64 != config.vocab_size


def test_rows_for_prompts_are_rows_too(tmp_path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "dim_head": 8}
    config = t.CpmAntConfig(vocab_size=61, dim_ff=48, prompt_length=4, prompt_types=2, **sizes)
    model = t.CpmAntModel(config)
    assert saved(model, tmp_path).embedding_rows == model.input_embedding.num_embeddings == 61 + 8


def test_rows_for_images_are_rows_too(tmp_path) -> None:
    """Mllama has eight, which its config does not count."""
    text = odd_models.save("mllama", tmp_path).model.language_model
    description = describe(find_source(str(tmp_path)))
    assert description.embedding_rows == text.embed_tokens.num_embeddings == 61 + 8
    assert text.config.vocab_size == 61


def test_a_multi_modal_model_has_the_rows_of_its_text(tmp_path) -> None:
    config = t.Gemma3Config(text_config=_GEMMA, vision_config=_VISION)
    description = saved(t.Gemma3ForConditionalGeneration(config), tmp_path)
    assert (description.embedding_rows, description.architecture) == (61, "Gemma3TextModel")


def test_a_resized_vocabulary(tmp_path) -> None:
    model = t.BertForMaskedLM(t.BertConfig(vocab_size=61, **_BERT))
    model.resize_token_embeddings(70)
    assert saved(model, tmp_path).embedding_rows == 70


def test_characters_without_a_table(tmp_path) -> None:
    config = t.CanineConfig(**_BERT, num_hash_buckets=64, local_transformer_stride=8)
    with pytest.raises(ModelError, match="CanineModel has no table with a row for each token"):
        saved(t.CanineModel(config), tmp_path)
