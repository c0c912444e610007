"""The truncated language model: where it comes from, its first blocks, and their raw output."""

from cpsae.models.description import ModelDescription, describe
from cpsae.models.self_test import SelfTest, self_test
from cpsae.models.source import ModelSource, find_source, load_tokenizer, tokenizer_fingerprint
from cpsae.models.truncated import TruncatedModel

__all__ = [
    "ModelDescription",
    "ModelSource",
    "SelfTest",
    "TruncatedModel",
    "describe",
    "find_source",
    "load_tokenizer",
    "self_test",
    "tokenizer_fingerprint",
]
