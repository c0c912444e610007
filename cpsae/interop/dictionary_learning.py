"""The folder that dictionary_learning's `utils.load_dictionary` reads: ae.pt and config.json.

ae.pt is a pickle, the only format that library reads: we write one, of tensors alone, and read
none. `dictionary_learning_reader` reads such a folder whose tensors are in ae.safetensors.
"""

from typing import Any

import torch
from torch import Tensor

from cpsae.interop.exported import Files
from cpsae.interop.folded import Folded, fold, refuse_form, refuse_rows, saved_by_torch
from cpsae.interop.origin import Origin
from cpsae.json_files import as_json_bytes
from cpsae.sae.autoencoder import SparseAutoencoder

TARGET = "dictionary_learning"
PICKLE, SAFE, CONFIG = "ae.pt", "ae.safetensors", "config.json"
CLASSES = {
    "relu": ("AutoEncoder", "StandardTrainer"),
    "topk": ("AutoEncoderTopK", "TopKTrainer"),
    "jumprelu": ("JumpReluAutoEncoder", "JumpReluTrainer"),
    "gated": ("GatedAutoEncoder", "GatedSAETrainer"),
}
"""Class and trainer of each form. What BatchTopK trains is a JumpReLU at inference; the class that
is called so takes x - b_dec, which would round once more."""


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind or the normalisation has no place in it."""
    refuse_rows(sae, TARGET, "fit with --set normalize=unit, or take --to safetensors")
    folded = fold(sae)
    refuse_form(folded, TARGET, CLASSES, "take --to sae-lens or safetensors")
    return Files(
        contents={
            PICKLE: saved_by_torch(_tensors(folded)),
            CONFIG: as_json_bytes(_config(folded, origin)),
        },
        what=CLASSES[folded.form][0],
        d=folded.d,
        n=folded.n,
        latent_scale=folded.latent_scale,
        load='dictionary_learning.utils.load_dictionary("{folder}", "cpu")',
    )


def _tensors(folded: Folded) -> dict[str, Tensor]:
    """As the class has them: all but JumpReLU take x - b_dec."""
    if folded.form == "jumprelu":
        return dict(folded.tensors)
    w = folded.taking_centred().tensors
    linear = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T}
    linear = {name: weight.contiguous() for name, weight in linear.items()}
    if folded.form == "relu":
        return {**linear, "encoder.bias": w["b_enc"], "bias": w["b_dec"]}
    if folded.form == "topk":
        k = torch.tensor(folded.numbers["k"], dtype=torch.int)
        no_threshold = torch.tensor(-1.0)  # as before it is measured
        return {
            **linear,
            "encoder.bias": w["b_enc"],
            "b_dec": w["b_dec"],
            "k": k,
            "threshold": no_threshold,
        }
    return {
        **linear,
        "decoder_bias": w["b_dec"],
        "r_mag": w["r_mag"],
        "gate_bias": w["b_gate"],
        "mag_bias": w["b_mag"],
    }


def _config(folded: Folded, origin: Origin) -> dict[str, Any]:
    dict_class, trainer_class = CLASSES[folded.form]
    trainer = {
        "trainer_class": trainer_class,
        "dict_class": dict_class,
        "activation_dim": folded.d,
        "dict_size": folded.n,
        "layer": origin.layer,
        "lm_name": origin.model,
        "submodule_name": None if origin.layer is None else f"{origin.point}_layer_{origin.layer}",
        "device": "cpu",
        **folded.numbers,
    }
    return {
        "trainer": trainer,
        "buffer": {"d_submodule": folded.d, "io": "out", "ctx_len": origin.context_size},
        "cpsae": {
            "kind": folded.kind,
            "latent_scale": folded.latent_scale,
            "hook_name": origin.hook_name,
            "dataset": origin.dataset,
            "prepend_bos": origin.prepend_bos,
            **origin.as_json(),
        },
    }
