"""Run folders of every kind with random weights, and what they compute, in float64 numpy, written
from docs/method.md alone."""

import json
from pathlib import Path

import numpy as np
import torch

from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import SCALED, Normalizer

D, N, M = 24, 40, 31
SCALE = 37.5
CONSTANTS: dict[str, dict] = {
    "relu": {},
    "p-anneal": {},
    "topk": {"k": 5},
    "batchtopk": {"k": 5, "threshold": 0.6},
    "matryoshka-batchtopk": {"k": 5, "threshold": 0.6},
    "jumprelu": {},
    "gated": {},
    "competitive": {"temperature": 0.17, "over": "enabled"},
    "lca-batchtopk": {"k": 5, "inhibition": 0.3, "first_threshold": 0.6, "threshold": 0.5},
}
FORMS = {
    "relu": "relu",
    "p-anneal": "relu",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "matryoshka-batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "competitive": "softmax",
    "lca-batchtopk": "lca",
}
MANIFEST = {
    "d": D,
    "model": {"id": "google/gemma-2-2b", "revision": "c5ebcd40", "dtype": "bfloat16"},
    "hook": {"layer": 19, "name": "resid_post"},
    "contexts": {"tokens": 128, "rows": 127, "first_position": 1, "batch_contexts": 64},
    "tokenizer": {"bos": 2, "separator": 1},
    "dataset": {"id": "monology/pile-uncopyrighted", "revision": "3be90335", "split": "train"},
}


def make_sae(kind: str, normalize: str, constants: dict | None = None) -> SparseAutoencoder:
    """Random weights of size one; 31 of 40 features are enabled."""
    random = torch.Generator().manual_seed(len(kind))
    kind_class = load_kind(kind)
    weights = {}
    for name, spec in kind_class.weights.items():
        value = torch.randn(spec.sizes(D, N), generator=random) * (0.3 if spec.shape != "nd" else 1)
        value = value / value.norm(dim=1, keepdim=True) if spec.unit_rows else value
        weights[spec.saved or name] = (value.T if spec.transposed else value).contiguous()
    if normalize == "layer":  # rows of norm 1: nothing but biases would be seen
        weights["W_enc"] *= 3
    fixed = kind_class.from_constants({**CONSTANTS[kind], **(constants or {})}, D, N)
    normalizer = Normalizer(normalize, SCALE if normalize in SCALED else 1.0)
    return SparseAutoencoder(weights, fixed, normalizer, n_enabled=M, hook={"layer": 19})


def make_run(
    folder: Path, kind: str = "batchtopk", normalize: str = "unit", norm: float = 200.0, **changes
) -> Path:
    """A finished run whose rows have this median norm; `changes` are of its store's manifest."""
    folder.mkdir(parents=True)
    make_sae(kind, normalize).save(folder)
    config = {
        "preset": kind,
        "settings": {"kind": kind, "max_norm": 10.0},
        "facts": {"norm_bound": 10 * norm},
        "store": {"path": "acts.zarr", "identity": "ab" * 32, "manifest": {**MANIFEST, **changes}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"steps": 1000}))
    return folder


def rows(normalize: str, count: int = 300, seed: int = 0) -> torch.Tensor:
    """(count, D) raw float32, about as long as the normalisation expects; with a mean."""
    random = np.random.default_rng(seed)
    size = 1.0 if normalize == "none" else SCALE
    values = (random.standard_normal((count, D)) + 0.3) * size * random.uniform(0.5, 2, (count, 1))
    return torch.from_numpy(values.astype(np.float32))


def plainly(sae: SparseAutoencoder, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Latents (B, M) and raw outputs (B, D) of raw rows (B, D)."""
    w = {k: v.numpy().astype(np.float64) for k, v in sae.named_parameters(recurse=False)}
    name, constants = sae.normalizer.name, sae.kind.constants()
    raw = x.numpy().astype(np.float64)
    center, scale = np.zeros((len(raw), 1)), np.ones((len(raw), 1))
    if name in ("unit", "sqrt-d"):
        scale *= sae.normalizer.scale
    elif name != "none":
        center = raw.mean(1, keepdims=True)
        scale = np.sqrt(((raw - center) ** 2).sum(1, keepdims=True))
        scale /= np.sqrt(D) if name == "layer-variance" else 1
    rows = (raw - center) / scale
    a = _latents(sae.kind.name, w, constants, rows)
    return a, (a @ w["W_dec"][:M] + w["b_dec"]) * scale + center


def _latents(kind: str, w: dict, constants: dict, x: np.ndarray) -> np.ndarray:
    enc, dec = w["W_enc"][:, :M], w["W_dec"][:M]
    if kind == "gated":
        size = np.maximum(x @ enc * np.exp(w["r_mag"][:M]) + w["b_mag"][:M], 0)
        return size * (x @ enc + w["b_gate"][:M] > 0)
    z = x @ enc + w["b_enc"][:M]
    f = np.maximum(z, 0)
    if kind in ("relu", "p-anneal"):
        return f
    if kind == "topk":
        smallest = np.sort(f, axis=1)[:, [-constants["k"]]]
        return f * (f >= smallest)
    if kind == "jumprelu":
        return f * (f > w["threshold"][:M])
    if kind == "competitive":
        e = np.exp(f / constants["temperature"])
        return e / e.sum(1, keepdims=True) * f
    if kind == "lca-batchtopk":
        first = f * (f > constants["first_threshold"])
        rest = x - first @ dec - w["b_dec"]
        f = np.maximum(z + constants["inhibition"] * rest @ dec.T, 0)
    return f * (f > constants["threshold"])


def relative(found, expected) -> float:
    """Norm of the difference over the norm."""
    found, expected = (np.asarray(v, dtype=np.float64) for v in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
