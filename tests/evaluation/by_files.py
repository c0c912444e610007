"""Held-out metrics in float64 numpy from the files of a run and a store alone: no cpsae, no torch.

Written from METHOD section 6, and for SAEBench from what its release 0.6.0 computes.
"""

import json

import numpy as np
import zarr
from safetensors.numpy import load_file

BATCH = 16


class Autoencoder:
    """sae.safetensors and sae.json."""

    def __init__(self, run):
        self.about = json.loads((run / "sae.json").read_text())
        m = self.about["n_enabled"]
        w = {k: v.astype(np.float64) for k, v in load_file(run / "sae.safetensors").items()}
        self.w_enc, self.b_enc = w["W_enc"][:, :m], w["b_enc"][:m]
        self.w_dec, self.b_dec = w["W_dec"][:m], w["b_dec"]
        self.whole = w
        self.n = self.about["n_latents"]

    def _scale(self, x):
        name = self.about["normalization"]["name"]
        if name in ("layer", "layer-variance"):
            center = x.mean(1, keepdims=True)
            scale = np.sqrt(((x - center) ** 2).sum(1, keepdims=True))
            return center, scale / (1 if name == "layer" else np.sqrt(x.shape[1]))
        return 0.0, self.about["normalization"].get("scale", 1.0)

    def encode(self, x):
        """(rows, n)."""
        center, scale = self._scale(x)
        f = np.maximum((x - center) / scale @ self.w_enc + self.b_enc, 0)
        a = self._select(f)
        return np.hstack([a, np.zeros((len(a), self.n - a.shape[1]))])

    def _select(self, f):
        kind = self.about["kind"]
        if kind == "competitive":
            e = np.exp((f - f.max(1, keepdims=True)) / self.about["temperature"])
            return e / e.sum(1, keepdims=True) * f
        if kind == "topk":
            edge = np.sort(f, axis=1)[:, -self.about["k"]][:, None]
            return np.where(f >= edge, f, 0)
        if kind == "batchtopk":
            return np.where(f > self.about["threshold"], f, 0)
        assert kind == "relu"
        return f

    def decode(self, a, x):
        center, scale = self._scale(x)
        return (a[:, : len(self.w_dec)] @ self.w_dec + self.b_dec) * scale + center

    def __call__(self, x):
        return self.decode(self.encode(x), x)


def held_out_rows(store):
    """(rows, d) float64."""
    return np.asarray(zarr.open_group(store, mode="r")["evaluation/activations"]).astype(np.float64)


def held_out_tokens(store):
    """(contexts, T)."""
    return np.asarray(zarr.open_group(store, mode="r")["evaluation/tokens"])


def manifest(store):
    return zarr.open_group(store, mode="r").attrs["cpsae"]


def bound(store, max_norm):
    rows = np.asarray(zarr.open_group(store, mode="r")["activations"]).astype(np.float64)
    return max_norm * np.median(np.sqrt((rows**2).sum(1)))


def contexts_of(store):
    """(rows,) the context of each held-out row."""
    return np.arange(len(held_out_rows(store))) // manifest(store)["contexts"]["rows"]


def special_rows(store, ids):
    """(rows,) whether each row's token is one of these."""
    tokens = held_out_tokens(store)[:, manifest(store)["contexts"]["first_position"] :]
    return np.isin(tokens, ids).reshape(-1)[: len(held_out_rows(store))]


def neighbours(w):
    w = w / np.sqrt((w * w).sum(1, keepdims=True))
    return (w @ w.T - 9 * np.eye(len(w))).max(1).mean()


def ours(sae, x, kept):
    """Every store metric of METHOD section 6."""
    everything, every_hat = x, sae(x)
    x, a, x_hat = x[kept], sae.encode(x[kept]), every_hat[kept]
    dot, rates = (x * x_hat).sum(1), (a != 0).mean(0)
    return {
        "l0": (a != 0).sum(1).mean(),
        "l0_eff": (np.abs(a) > 0.01 * np.abs(a).max(1, keepdims=True)).sum(1).mean(),
        "l1": np.abs(a).sum(1).mean(),
        "explained_variance": 1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "explained_variance_all_rows": 1
        - ((everything - every_hat) ** 2).sum() / ((everything - everything.mean(0)) ** 2).sum(),
        "mse": ((x - x_hat) ** 2).mean(),
        "cosine": (dot / np.sqrt((x**2).sum(1) * (x_hat**2).sum(1))).mean(),
        "relative_bias": (x_hat**2).sum(1).mean() / dot.mean(),
        "dead": (rates == 0).mean(),
        "dense": (rates > 0.1).mean(),
        "activation_variance": rates.var(),
        "decoder_cosine": neighbours(sae.w_dec),
        "evaluation_rows": kept.sum(),
        "evaluation_skipped_rows": (~kept).sum(),
    }


def saebench(sae, x, batches, special):
    """SAEBench's core figures that need no model. batches: (rows,) the batch of each row."""
    a, x_hat = sae.encode(x), sae(x)
    per_token = {name: [] for name in ("mse", "legacy", "cossim", "l0", "l1", "in", "out", "ratio")}
    squares, means, residuals, biases = [], [], [], []
    for number in range(batches.max() + 1):
        here = (batches == number) & ~special
        y, y_hat, b = x[here], x_hat[here], a[here]
        residual, norm, norm_hat = ((y - y_hat) ** 2).sum(1), *map(_norms, (y, y_hat))
        per_token["mse"] += list(residual / here.sum())
        per_token["legacy"] += list(1 - residual / ((y - y.mean(0)) ** 2).sum(1))
        per_token["cossim"] += list((y * y_hat).sum(1) / norm / norm_hat)
        per_token["l0"] += list((b != 0).sum(1))
        per_token["l1"] += list(b.sum(1))
        per_token["in"] += list(norm)
        per_token["out"] += list(norm_hat)
        per_token["ratio"] += list(norm_hat / np.where(norm < 1e-4, 1, norm))
        biases.append((norm_hat**2).mean() / (y * y_hat).sum(1).mean())
        squares.append((y**2).sum(1).mean())
        means.append((y**2).mean(0))
        residuals.append(residual.mean())
    mean = {name: np.mean(values) for name, values in per_token.items()}
    density = (a[~special] > 0).mean(0)
    variance = np.mean(squares) - np.mean(np.concatenate(means)) ** 2
    found = {
        "explained_variance": 1 - np.mean(residuals) / variance,
        "explained_variance_legacy": mean["legacy"],
        "mse": mean["mse"],
        "cossim": mean["cossim"],
        "l0": mean["l0"],
        "l1": mean["l1"],
        "l2_norm_in": mean["in"],
        "l2_norm_out": mean["out"],
        "l2_ratio": mean["ratio"],
        "relative_reconstruction_bias": np.mean(biases),
        "average_max_encoder_cosine_sim": neighbours(sae.whole["W_enc"].T),
        "average_max_decoder_cosine_sim": neighbours(sae.whole["W_dec"]),
        "frac_alive": (density > 0).mean(),
        "freq_over_1_percent": (density > 0.01).mean(),
        "freq_over_10_percent": (density > 0.1).mean(),
        "normalized_freq_over_1_percent": density[density > 0.01].sum() / density.sum(),
        "normalized_freq_over_10_percent": density[density > 0.1].sum() / density.sum(),
    }
    return {f"saebench/{name}": value for name, value in found.items()}


def _norms(rows):
    return np.sqrt((rows**2).sum(1))
