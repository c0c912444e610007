"""The folder that SAELens loads: cfg.json and sae_weights.safetensors; sae_lens_reader reads it."""

from typing import Any

from cpsae.errors import ExportError
from cpsae.interop.exported import Files
from cpsae.interop.folded import Folded, as_bytes, fold, layer_norm_scale
from cpsae.interop.origin import Origin
from cpsae.json_files import as_json_bytes
from cpsae.sae.autoencoder import SparseAutoencoder

FILES = (("cfg.json", "sae_weights.safetensors"),)

FORMAT_OF = "6.54.0"
"""The release of SAELens whose format this is. From 6.0 on metadata is nested; where no version of
6 or later is named, the loader builds it anew from top-level keys and drops what is in it."""
ARCHITECTURES = {
    "relu": "standard",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "softmax": "cpsae_softmax",
    "lca": "cpsae_lca",
}
OWN = ("softmax", "lca")
"""Forms whose class is ours (cpsae.interop.saelens_classes)."""
_EPSILON = 1e-5
"""What SAELens' layer_norm adds to a row's standard deviation, and we do not."""
_MOST = 1e-4
"""Of a typical row's standard deviation that it may be."""


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind says no form, or rows are too short for layer_norm."""
    notes = []
    if sae.normalizer.per_row:
        notes.append(_layer_norm(sae, origin))
    if origin.is_local:
        notes.append(
            f"the store's model was a local one: SAELens is told '{origin.model}'; --model gives "
            "the name that it loads the model by"
        )
    folded = fold(sae, layer_norm_scale(sae.normalizer.name, sae.d))
    load = 'sae_lens.SAE.load_from_disk("{folder}")'
    if folded.form in OWN:
        load = f"import cpsae.interop.saelens_classes; {load}"
        notes.append(
            f"SAELens has no architecture like {folded.kind}: `import "
            "cpsae.interop.saelens_classes` registers ours before it is loaded"
        )
    return Files(
        contents={
            FILES[0][0]: as_json_bytes(_cfg(folded, origin)),
            FILES[0][1]: as_bytes(folded.tensors),
        },
        what=ARCHITECTURES[folded.form],
        d=folded.d,
        n=folded.n,
        latent_scale=folded.latent_scale,
        load=load,
        notes=tuple(notes),
    )


def _cfg(folded: Folded, origin: Origin) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if folded.form == "topk":
        more["rescale_acts_by_decoder_norm"] = False
    return {
        "architecture": ARCHITECTURES[folded.form],
        "d_in": folded.d,
        "d_sae": folded.n,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        # expected_average_only_in, whose meaning is one scale for all rows, is never applied when
        # a folder is loaded: scales are in the weights.
        "normalize_activations": "none" if folded.rows == "none" else "layer_norm",
        "reshape_activations": "none",
        "metadata": _metadata(folded, origin),
        **more,
        **folded.numbers,
    }


def _metadata(folded: Folded, origin: Origin) -> dict[str, Any]:
    first = origin.first_position
    return {
        "sae_lens_version": FORMAT_OF,
        "sae_lens_training_version": None,
        "model_name": origin.model,
        "model_class_name": "HookedTransformer",
        "model_from_pretrained_kwargs": {},
        "hook_name": origin.hook_name,
        "hook_head_index": None,
        "prepend_bos": origin.prepend_bos,
        "context_size": origin.context_size,
        "seqpos_slice": [first, None] if first else [None],
        "exclude_special_tokens": False,
        "dataset_path": origin.dataset,
        "neuronpedia_id": None,
        "cpsae_kind": folded.kind,
        "latent_scale": folded.latent_scale,
        **origin.as_json(),
    }


def _layer_norm(sae: SparseAutoencoder, origin: Origin) -> str:
    """What is to be said of SAELens' layer_norm. Raises ExportError where a typical row is so short
    that it gives other latents."""
    said = f"normalize={sae.normalizer.name}: SAELens adds 1e-5 to each row's standard deviation"
    if origin.median_norm is None:
        return f"{said}, which makes rows shorter by 1e-5 divided by it"
    deviation = origin.median_norm / sae.d**0.5
    if deviation * _MOST < _EPSILON:
        raise ExportError(
            f"{said}, which is about {deviation:.2g} here, so it would give other latents; of "
            "normalisations any rows are exported with unit, sqrt-d and none: fit with "
            "--set normalize=unit, or take --to safetensors"
        )
    share = _EPSILON / deviation
    return f"{said} (about {deviation:.3g} here), which makes rows shorter by a part of {share:.1g}"
