"""The folder that EleutherAI's sparsify loads: cfg.json and sae.safetensors. It has TopK alone.

cpsae.json stands beside them, for people.
"""

from typing import Any

from cpsae.interop.exported import Files, as_json_bytes
from cpsae.interop.folded import Folded, as_bytes, fold, refuse_form, refuse_rows
from cpsae.interop.origin import Origin
from cpsae.sae.autoencoder import SparseAutoencoder

TARGET = "sparsify"
TAKES = {"topk": "topk"}


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind or the normalisation has no place in it."""
    refuse_rows(sae, TARGET, "fit with --set normalize=unit, or take --to safetensors")
    folded = fold(sae)
    refuse_form(folded, TARGET, TAKES, "take --to sae-lens, dictionary-learning or safetensors")
    w = folded.taking_centred().tensors
    tensors = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    return Files(
        contents={
            "cfg.json": as_json_bytes(_cfg(folded)),
            "sae.safetensors": as_bytes(tensors),
            "cpsae.json": as_json_bytes(_about(folded, origin)),
        },
        what="topk",
        d=folded.d,
        n=folded.n,
        latent_scale=folded.latent_scale,
        load='sparsify.SparseCoder.load_from_disk("{folder}")',
    )


def _cfg(folded: Folded) -> dict[str, Any]:
    return {
        "activation": "topk",
        "d_in": folded.d,
        "num_latents": folded.n,
        "expansion_factor": max(1, folded.n // folded.d),  # not looked at beside num_latents
        "k": folded.numbers["k"],
        "normalize_decoder": True,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
    }


def _about(folded: Folded, origin: Origin) -> dict[str, Any]:
    """What cfg.json has no keys for: sparsify warns of others."""
    return {
        "kind": folded.kind,
        "latent_scale": folded.latent_scale,
        "model": origin.model,
        "hook_name": origin.hook_name,
        "context_size": origin.context_size,
        "prepend_bos": origin.prepend_bos,
        "dataset": origin.dataset,
        **origin.as_json(),
    }
