"""The trained autoencoder, as inference and other programs see it.

Names: D dimensions, N features, M enabled features (a prefix of N). Shapes (..., D) mean any
leading dimensions.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cpsae.sae.files import read_run, write_run
from cpsae.sae.initialization import Parameters
from cpsae.sae.kind import Kind, Latents
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import InputError, Normalizer


class SparseAutoencoder(nn.Module):
    """Raw vectors to latents (in normalised space) and back. Keeps no state between calls.

    W_enc (D, N), b_enc (N,), W_dec (N, D) with unit rows, b_dec (D,), as SAELens names them; they
    do not ask for gradients until `requires_grad_(True)`. Features from `n_enabled` on were never
    trained: their latents are exactly 0 and they take no part in the competition.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        kind: Kind,
        normalizer: Normalizer,
        *,
        n_enabled: int,
        hook: dict[str, Any] | None = None,
    ) -> None:
        """weights: W_enc, b_enc, W_dec, b_dec, and kind: taken over, not copied.

        Raises ValueError where the shapes do not fit.
        """
        super().__init__()
        _check_shapes(weights, n_enabled)
        self.W_enc = _frozen(weights["W_enc"])
        self.b_enc = _frozen(weights["b_enc"])
        self.W_dec = _frozen(weights["W_dec"])
        self.b_dec = _frozen(weights["b_dec"])
        self.kind = kind
        self.normalizer = normalizer
        self.n_enabled = n_enabled
        self.hook = dict(hook or {})
        self.eval()

    @classmethod
    def from_training(
        cls,
        parameters: Parameters,
        *,
        kind: str,
        constants: dict[str, Any],
        n_enabled: int,
        normalizer: Normalizer,
        hook: dict[str, Any] | None = None,
    ) -> Self:
        """A copy of weights in training's layout, that shares nothing with the training.

        kind, constants: a kind's name and what its `constants()` gave. Centring (the encoder saw
        x - b_dec) must be folded into b_enc already.
        """
        w_enc, b_enc, w_dec, b_dec = (p.detach().float() for p in parameters)
        weights = {
            "W_enc": w_enc.T.clone(memory_format=torch.contiguous_format),
            "b_enc": b_enc.clone(),
            "W_dec": w_dec.clone(),
            "b_dec": b_dec.clone(),
        }
        rule = load_kind(kind).from_constants(constants)
        return cls(weights, rule, normalizer, n_enabled=n_enabled, hook=hook)

    @property
    def d(self) -> int:
        """Dimensions of a vector."""
        return self.W_enc.shape[0]

    @property
    def n_latents(self) -> int:
        """Features of the dictionary, enabled or not."""
        return self.W_enc.shape[1]

    def encode(self, x: Tensor) -> Tensor:
        """x: (..., D) raw, any floating dtype -> latents a (..., N) of the weights' dtype.

        Raises InputError where the last dimension is not D.
        """
        return pad(self.latents(x).competed, (0, self.n_latents - self.n_enabled))

    def latents(self, x: Tensor) -> Latents:
        """x: (..., D) raw -> f and a, each (..., M): before and after the competition."""
        if x.ndim == 0 or x.shape[-1] != self.d:
            raise InputError(
                f"vectors of shape {tuple(x.shape)} do not fit: this autoencoder takes "
                f"(..., {self.d})"
            )
        m = self.n_enabled
        rows = self.normalizer.normalize(x).to(self.W_enc.dtype)
        latents: Latents = self.kind(rows @ self.W_enc[:, :m] + self.b_enc[:m])
        return latents

    def decode(self, f: Tensor, like: Tensor | None = None) -> Tensor:
        """f: (..., N) latents as `encode` gives them -> (..., D) float32, raw.

        like: the raw vectors (..., D) that f came from; a per-row normalisation (`layer`,
        `layer-variance`) needs them to put each row's mean and norm back, others ignore them.
        Raises InputError where they are missing, or where f's last dimension is not N.
        """
        if f.ndim == 0 or f.shape[-1] != self.n_latents:
            raise InputError(
                f"latents of shape {tuple(f.shape)} do not fit: this autoencoder takes "
                f"(..., {self.n_latents})"
            )
        m = self.n_enabled
        x_hat = f[..., :m].to(self.W_dec.dtype) @ self.W_dec[:m] + self.b_dec
        return self.normalizer.denormalize(x_hat, like)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) raw -> its reconstruction (..., D), raw."""
        return self.decode(self.encode(x), like=x)

    def save(self, folder: Path | str) -> None:
        """Write sae.safetensors and sae.json, each whole or not at all; equal weights give equal
        bytes. Raises DiskError where the folder cannot be written."""
        weights = {name: tensor.detach() for name, tensor in self.named_parameters(recurse=False)}
        write_run(Path(folder), weights, self.description())

    def description(self) -> dict[str, Any]:
        """What sae.json holds: all that inference needs beside the weights."""
        return {
            "kind": type(self.kind).__module__.rpartition(".")[2],
            "d": self.d,
            "n_latents": self.n_latents,
            "n_enabled": self.n_enabled,
            "normalization": self.normalizer.to_json(),
            "hook": self.hook,
            **self.kind.constants(),
        }


def load(run_folder: Path | str, device: torch.device | str = "cpu") -> SparseAutoencoder:
    """The autoencoder of a run folder, in eval mode on `device`.

    Raises RunError (one line) where there is no such folder, no autoencoder in it, or one whose
    files are broken or contradict each other.
    """
    folder = Path(run_folder)
    run = read_run(folder)
    with run.errors():
        sae = SparseAutoencoder(
            run.weights,
            run.kind(),
            Normalizer.from_json(run.description["normalization"]),
            n_enabled=run.description["n_enabled"],
            hook=run.description["hook"],
        )
        run.check(d=sae.d, n_latents=sae.n_latents)
    return sae.to(device)


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _check_shapes(weights: dict[str, Tensor], n_enabled: int) -> None:
    shapes = {name: tuple(weights[name].shape) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if len(shapes["W_enc"]) != 2:
        raise ValueError(f"W_enc has shape {shapes['W_enc']}, not (d, n)")
    d, n = shapes["W_enc"]
    for name, expected in {"b_enc": (n,), "W_dec": (n, d), "b_dec": (d,)}.items():
        if shapes[name] != expected:
            raise ValueError(
                f"{name} has shape {shapes[name]}, but W_enc {(d, n)} goes with {expected}"
            )
    if type(n_enabled) is not int or not 1 <= n_enabled <= n:
        raise ValueError(f"n_enabled is {n_enabled!r}, not a whole number from 1 to {n}")
