"""Folders as other programs publish autoencoders, of random weights, and what those compute, in
float64 numpy, written from the programs' own definitions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

D, N, K = 24, 40, 5

METADATA = {
    "sae_lens_version": "6.54.12",
    "model_name": "gemma-2-2b",
    "hook_name": "blocks.19.hook_resid_post",
    "context_size": 128,
    "prepend_bos": True,
    "dataset_path": "monology/pile-uncopyrighted",
    "seqpos_slice": [1, None],
}
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")


def rows(count: int = 300, size: float = 5.0, seed: int = 0) -> torch.Tensor:
    """(count, D) raw float32 with a mean."""
    random = np.random.default_rng(seed)
    values = (random.standard_normal((count, D)) + 0.3) * size * random.uniform(0.5, 2, (count, 1))
    return torch.from_numpy(values.astype(np.float32))


def tensors(seed: int = 0, unit: bool = True) -> dict[str, torch.Tensor]:
    """Every tensor that a format may have, by our names; decoder rows of norm 1, or of many."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    w_dec = normal(N, D)
    w_dec /= w_dec.norm(dim=1, keepdim=True)
    if not unit:
        w_dec *= torch.rand(N, 1, generator=random) * 3 + 0.2
    made = {"W_enc": normal(D, N), "W_dec": w_dec, "b_dec": normal(D) * 2, "r_mag": normal(N) / 3}
    made |= {name: normal(N) for name in ("b_enc", "b_gate", "b_mag")}
    return {**made, "threshold": torch.rand(N, generator=random) * 4}


def write_sae_lens(folder: Path, architecture: str, unit: bool = True, **cfg) -> Path:
    """As SAELens 6 saves it, with changes of cfg.json; a value of None leaves a key out."""
    folder.mkdir(parents=True)
    own = {"jumprelu": ("b_enc", "threshold"), "gated": ("b_gate", "b_mag", "r_mag")}
    made = tensors(unit=unit)
    names = ("W_enc", "W_dec", "b_dec", *own.get(architecture, ("b_enc",)))
    save_file({name: made[name] for name in names}, folder / "sae_weights.safetensors")
    content = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": N,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": METADATA,
        **({"k": K, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
        **cfg,
    }
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(content))
    return folder


def sae_lens_plainly(folder: Path, x: torch.Tensor, factor: float = 1.0) -> np.ndarray:
    """Raw outputs (B, D) of raw rows, which `factor` multiplied in training."""
    cfg = json.loads((folder / "cfg.json").read_text())
    w = _double(load_file(folder / "sae_weights.safetensors"))
    raw = x.numpy().astype(np.float64) * factor
    center, size = np.zeros((len(raw), 1)), np.ones((len(raw), 1))
    deviation = size
    if cfg.get("normalize_activations") == "layer_norm":
        center, deviation = raw.mean(1, keepdims=True), raw.std(1, ddof=1, keepdims=True)
        size = deviation + 1e-5
    inside = (raw - center) / size - cfg.get("apply_b_dec_to_input", True) * w["b_dec"]
    norms = np.linalg.norm(w["W_dec"], axis=1) if cfg.get("rescale_acts_by_decoder_norm") else 1.0
    a = _latents(cfg["architecture"], w, inside, norms, cfg.get("k", 0)) / norms
    return ((a @ w["W_dec"] + w["b_dec"]) * deviation + center) / factor


def _latents(architecture: str, w: dict, x: np.ndarray, norms, k: int) -> np.ndarray:
    if architecture == "gated":
        projected = x @ w["W_enc"]
        size = np.maximum(projected * np.exp(w["r_mag"]) + w["b_mag"], 0)
        return size * (projected + w["b_gate"] > 0)
    z = (x @ w["W_enc"] + w["b_enc"]) * norms
    f = np.maximum(z, 0)
    if architecture == "topk":
        return f * (f >= np.sort(f, axis=1)[:, [-k]])
    return f * (z > w["threshold"]) if architecture == "jumprelu" else f


def write_gemma_scope(folder: Path, second: bool = False) -> Path:
    """params.npz, or the second release's file."""
    folder.mkdir(parents=True)
    made = {k: v for k, v in tensors().items() if k in ("W_enc", "W_dec", "b_enc", "b_dec")}
    made["threshold"] = tensors()["threshold"]
    if second:
        lower = {k.lower() if k[0] == "W" else k: v for k, v in made.items()}
        save_file(lower, folder / "params.safetensors")
    else:
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in made.items()}
        np.savez(folder / "params.npz", **arrays)
    return folder


def gemma_scope_plainly(x: torch.Tensor) -> np.ndarray:
    """Raw outputs, as its paper has them."""
    w = _double(tensors())
    z = x.numpy().astype(np.float64) @ w["W_enc"] + w["b_enc"]
    return np.maximum(z, 0) * (z > w["threshold"]) @ w["W_dec"] + w["b_dec"]


def write_sparsify(folder: Path, **cfg) -> Path:
    """As SparseCoder.save_to_disk does, in a folder of a run that names model and data set."""
    folder.mkdir(parents=True)
    w = tensors()
    named = {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"]}
    save_file({**named, "W_dec": w["W_dec"], "b_dec": w["b_dec"]}, folder / "sae.safetensors")
    content = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True}
    content |= {"num_latents": N, "k": K, "multi_topk": False, "skip_connection": False}
    content |= {"transcode": False, "d_in": D, **cfg}
    (folder / "cfg.json").write_text(json.dumps(content))
    run = {"model": "EleutherAI/pythia-160m", "dataset": "some/texts", "ctx_len": 512}
    (folder.parent / "config.json").write_text(json.dumps(run))
    return folder


def sparsify_plainly(x: torch.Tensor) -> np.ndarray:
    """Raw outputs."""
    w = _double(tensors())
    a = _latents("topk", w, x.numpy().astype(np.float64) - w["b_dec"], 1.0, K)
    return a @ w["W_dec"] + w["b_dec"]


_LINEAR: dict[str, Callable] = {
    "encoder.weight": lambda w: w["W_enc"].T.contiguous(),
    "encoder.bias": lambda w: w["b_enc"],
    "decoder.weight": lambda w: w["W_dec"].T.contiguous(),
}
_SQUARE: dict[str, Callable] = {
    name: lambda w, name=name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")
}
_ONE: dict[str, Callable] = {
    "threshold": lambda _: torch.tensor(1.5),
    "k": lambda _: torch.tensor(K, dtype=torch.int),
}
DICTIONARIES: dict[str, dict[str, Callable]] = {
    "AutoEncoder": {**_LINEAR, "bias": lambda w: w["b_dec"]},
    "AutoEncoderNew": {**_LINEAR, "decoder.bias": lambda w: w["b_dec"]},
    "GatedAutoEncoder": {
        "encoder.weight": _LINEAR["encoder.weight"],
        "decoder.weight": _LINEAR["decoder.weight"],
        "decoder_bias": lambda w: w["b_dec"],
        "r_mag": lambda w: w["r_mag"],
        "gate_bias": lambda w: w["b_gate"],
        "mag_bias": lambda w: w["b_mag"],
    },
    "JumpReluAutoEncoder": {**_SQUARE, "threshold": lambda w: w["threshold"]},
    "AutoEncoderTopK": {**_LINEAR, "b_dec": lambda w: w["b_dec"], **_ONE},
    "BatchTopKSAE": {**_LINEAR, "b_dec": lambda w: w["b_dec"], **_ONE},
    "MatryoshkaBatchTopKSAE": {
        **_SQUARE,
        **_ONE,
        "group_sizes": lambda _: torch.tensor([10, N - 10]),
    },
}
"""The tensors of each class."""


def write_dictionary(folder: Path, name: str, unit: bool = True, **changes) -> Path:
    """A trainer folder with its pickle, and with the safetensors file that replaces it."""
    folder.mkdir(parents=True)
    w = tensors(unit=unit)
    made = {key: make(w) for key, make in DICTIONARIES[name].items()} | changes
    torch.save(made, folder / "ae.pt")
    save_file({key: value.clone() for key, value in made.items()}, folder / "ae.safetensors")
    trainer = {"dict_class": name, "activation_dim": D, "dict_size": N, "layer": 19, "k": K}
    trainer |= {"lm_name": "google/gemma-2-2b", "submodule_name": "resid_post_layer_19"}
    config = {"trainer": trainer, "buffer": {"ctx_len": 128, "io": "out", "d_submodule": D}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def dictionary_plainly(name: str, x: torch.Tensor, unit: bool = True) -> np.ndarray:
    """Raw outputs."""
    w = _double(tensors(unit=unit))
    raw = x.numpy().astype(np.float64)
    architecture = {"GatedAutoEncoder": "gated", "AutoEncoderTopK": "topk"}.get(name, "standard")
    if name not in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK"):
        architecture = "jumprelu"
        w["threshold"] = w["threshold"] if name == "JumpReluAutoEncoder" else np.full(N, 1.5)
    centred = name not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    a = _latents(architecture, w, raw - centred * w["b_dec"], 1.0, K)
    return a @ w["W_dec"] + w["b_dec"]


def _double(w: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().astype(np.float64) for name, tensor in w.items()}
