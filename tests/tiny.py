"""A tiny extraction: its sizes, its text, and how what it wrote is compared."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import Gemma2Config

TOKENS = 16
LAYER = 19
BLOCKS = 26
WIDTH = 32
WORDS = 300


def gemma_config(vocabulary: int, blocks: int) -> "Gemma2Config":
    """A tiny Gemma-2 with all that sets it apart: soft-capping, sliding windows, shared keys."""
    from transformers import Gemma2Config

    return Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        attn_logit_softcapping=2.0,
        max_position_embeddings=64,
    )


def texts(n_documents: int = 400, seed: int = 0) -> list[str]:
    """Documents of 50 to 90 words of a made-up language: one word is one token."""
    random = np.random.default_rng(seed)
    lengths = random.integers(50, 90, n_documents)
    return [" ".join(f"w{i}" for i in random.integers(0, WORDS, n)) for n in lengths]


def content_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its relative name."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def chunks_of(folder: Path) -> dict[str, str]:
    """`content_of` a store without its documents: tokens, activations and statistics."""
    return {name: sha for name, sha in content_of(folder).items() if "/c/" in name}
