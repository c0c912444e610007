"""Autoencoders in other programs' formats: what they are called. Imports nothing heavy."""

TARGETS = {
    "sae-lens": "cpsae.interop.sae_lens",
    "dictionary-learning": "cpsae.interop.dictionary_learning",
    "sparsify": "cpsae.interop.sparsify",
    "saebench": "cpsae.interop.saebench",
    "safetensors": "cpsae.interop.plain",
}
"""What `--to` takes, and the module whose `export` writes it."""
