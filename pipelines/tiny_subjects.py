"""What the reliability scripts work on: a tiny language model, its text, an extraction of 20 chunks
and a fit of three checkpoints, all of a second or less."""

import json
import random
from pathlib import Path
from typing import Any

WORDS = 200
BLOCKS, WIDTH, TOKENS = 2, 16, 4
VECTORS = 3400
EXTRACTION: dict[str, Any] = {
    "layer": 0,
    "tokens": TOKENS,
    "vectors": VECTORS,
    "device": "cpu",
    "dtype": "float32",
}
FIT: dict[str, Any] = {
    "steps": 30,
    "batch_size": 64,
    "n_latents": 24,
    "log_every": 5,
    "checkpoint_every": 10,
    "keep_checkpoints": 2,
    "device": "cpu",
    "lr": 2e-3,
}
"""Settings; the steps give three checkpoints, of which two are kept."""


def make_model(folder: Path) -> Path:
    """A Llama of two blocks with random weights, and a tokenizer that knows words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<bos>", "<eos>"]
    words = [*special, *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_text(file: Path, documents: int = 400, seed: int = 0) -> Path:
    """A .jsonl of documents of a made-up language."""
    rng = random.Random(seed)
    lines = []
    for _ in range(documents):
        words = " ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randrange(20, 40)))
        lines.append(json.dumps({"text": words}) + "\n")
    file.write_text("".join(lines))
    return file
