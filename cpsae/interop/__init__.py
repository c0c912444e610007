"""Autoencoders in other programs' formats: what they are called. Imports nothing heavy."""

TARGETS = {
    "sae-lens": "cpsae.interop.sae_lens",
    "dictionary-learning": "cpsae.interop.dictionary_learning",
    "sparsify": "cpsae.interop.sparsify",
    "saebench": "cpsae.interop.saebench",
    "safetensors": "cpsae.interop.plain",
}
"""What `--to` takes, and the module whose `export` writes it."""

SOURCES = {
    "sae-lens": "cpsae.interop.sae_lens_reader",
    "sparsify": "cpsae.interop.sparsify",
    "dictionary-learning": "cpsae.interop.dictionary_learning_reader",
    "gemma-scope": "cpsae.interop.gemma_scope",
    "safetensors": "cpsae.interop.plain",
}
"""What `cpsae convert` reads: modules whose `FILES` are those that a folder of the format has, and
whose `read` reads one."""
