"""Weights and a JSON that a few lines of torch can use: docs/export-format.md is the normative
description."""

from cpsae.interop.exported import Files, as_json_bytes
from cpsae.interop.folded import as_bytes, fold
from cpsae.interop.origin import Origin
from cpsae.sae.autoencoder import SparseAutoencoder

FORMAT_VERSION = 1
WEIGHTS = "autoencoder.safetensors"
DESCRIPTION = "autoencoder.json"


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind says no form."""
    folded = fold(sae)
    about = {
        "format": "cpsae-autoencoder",
        "format_version": FORMAT_VERSION,
        "form": folded.form,
        "d_in": folded.d,
        "n_latents": folded.n,
        "rows": folded.rows,
        "latent_scale": folded.latent_scale,
        **folded.numbers,
        "origin": {
            "kind": folded.kind,
            "model": origin.model,
            "layer": origin.layer,
            "point": origin.point,
            "hook_name": origin.hook_name,
            "context_size": origin.context_size,
            "first_position": origin.first_position,
            "prepend_bos": origin.prepend_bos,
            "dataset": origin.dataset,
            **origin.as_json(),
        },
    }
    return Files(
        contents={WEIGHTS: as_bytes(folded.tensors), DESCRIPTION: as_json_bytes(about)},
        what=folded.form,
        d=folded.d,
        n=folded.n,
        latent_scale=folded.latent_scale,
        load='safetensors.torch.load_file("{folder}/' + WEIGHTS + '")',
    )
