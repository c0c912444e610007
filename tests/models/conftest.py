"""Tiny models with random weights, saved as save_pretrained writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import gemma_config
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

VOCABULARY = 61

BUILDERS: dict[str, Callable[[int], Any]] = {
    "gemma2": lambda n: Gemma2ForCausalLM(gemma_config(VOCABULARY, n)),
    "llama": lambda n: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=n,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    ),
    "gpt2": lambda n: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=n,
            n_head=4,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
        )
    ),
    "bert": lambda n: BertForMaskedLM(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=n,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    ),
}


def build(kind: str, n_layers: int) -> Any:
    """A model whose every weight is random: the norms too, which transformers starts at one."""
    torch.manual_seed(0)
    model = BUILDERS[kind](n_layers).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """saved(kind, n_layers) gives the folder of a tiny model, made once; do not change it."""
    made: dict[tuple[str, int], Path] = {}

    def save(kind: str, n_layers: int) -> Path:
        if (kind, n_layers) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}{n_layers}")
            build(kind, n_layers).save_pretrained(folder)
            made[kind, n_layers] = folder
        return made[kind, n_layers]

    return save


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two contexts of 16 tokens, longer than the tiny Gemma's sliding window."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, VOCABULARY, (2, 16), generator=generator)
