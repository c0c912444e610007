"""Text to tokens: sources, tokenising, packing, the held-out split and the global shuffle.

Imports no torch: a tokenizer is handed in.
"""

from cpsae.corpus.corpus import Corpus
from cpsae.corpus.dataset_splits import DEFAULT as DEFAULT_SPLIT
from cpsae.corpus.fields import Field
from cpsae.corpus.hub import commit_of
from cpsae.corpus.packing import PackedTokens, TooSmallError, pack
from cpsae.corpus.sources import Reading, documents, identity, open_corpus
from cpsae.corpus.split import PackingPlan
from cpsae.corpus.text_tokenizer import SpecialTokens, find_special_tokens

__all__ = [
    "DEFAULT_SPLIT",
    "Corpus",
    "Field",
    "PackedTokens",
    "PackingPlan",
    "Reading",
    "SpecialTokens",
    "TooSmallError",
    "commit_of",
    "documents",
    "find_special_tokens",
    "identity",
    "open_corpus",
    "pack",
]
