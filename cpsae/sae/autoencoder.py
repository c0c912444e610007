"""The trained autoencoder, as inference and other programs see it.

Names: D dimensions, N features, M enabled features (a prefix of N). Shapes (..., D) mean any
leading dimensions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cpsae.durable import local_folder
from cpsae.errors import RunError
from cpsae.sae.described import SAEConfig
from cpsae.sae.files import describe, read_autoencoder, write_autoencoder
from cpsae.sae.kind import Kind, Latents, Weights, prefix
from cpsae.sae.normalization import InputError, Normalizer
from cpsae.tensor_files import in_memory
from cpsae.tensors import dtype_name, from_numpy


class SparseAutoencoder(nn.Module):
    """Raw vectors to latents (in normalised space) and back. Keeps no state between calls.

    Its parameters have SAELens' names: W_enc (D, N), b_enc (N,), W_dec (N, D) with unit rows,
    b_dec (D,), and what its kind has beside them; they do not ask for gradients until
    `requires_grad_(True)`. Features from `n_enabled` on were never trained: their latents are
    exactly 0 and they take no part in the competition.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(
        self,
        weights: dict[str, Tensor],
        kind: Kind,
        normalizer: Normalizer,
        *,
        n_enabled: int,
        hook: dict[str, Any] | None = None,
    ) -> None:
        """weights: by their names in sae.safetensors, taken over, not copied; so is kind.

        Raises ValueError where the shapes do not fit.
        """
        super().__init__()
        _check_shapes(weights, kind, n_enabled)
        for name, spec in kind.weights.items():
            saved = spec.saved or name
            self.register_parameter(saved, nn.Parameter(weights[saved], requires_grad=False))
        self.kind = kind
        self.normalizer = normalizer
        self.n_enabled = n_enabled
        self.hook = dict(hook or {})
        self.eval()

    @classmethod
    def from_training(
        cls,
        weights: Weights,
        kind: Kind,
        *,
        n_enabled: int,
        normalizer: Normalizer,
        hook: dict[str, Any] | None = None,
    ) -> Self:
        """A copy of weights in training's layout, that shares nothing with the training.

        Centring (the encoder saw x - b_dec) must be in the weights already.
        """
        detached = {name: weight.detach().float() for name, weight in weights.items()}
        packed = {
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in kind.pack(detached).items()
        }
        d, n = kind.plan.d, kind.plan.n
        fixed = type(kind).from_constants(kind.constants(), d, n).to(packed["b_dec"].device)
        return cls(packed, fixed, normalizer, n_enabled=n_enabled, hook=hook)

    @property
    def d(self) -> int:
        """Dimensions of a vector."""
        return self.kind.plan.d

    @property
    def n_latents(self) -> int:
        """Features of the dictionary, enabled or not."""
        return self.kind.plan.n

    @property
    def cfg(self) -> SAEConfig:
        """What it is: d_in, d_sae, architecture, hook_name, model_name and so on."""
        weight = self.b_dec
        return SAEConfig.of(self.description(), dtype_name(weight.dtype), str(weight.device))

    def __repr__(self) -> str:
        return f"SparseAutoencoder({self.cfg})"

    def encode(self, x: Tensor | npt.NDArray[Any]) -> Tensor:
        """x: (..., D) raw, any floating dtype -> latents a (..., N) of the weights' dtype. A numpy
        array, like rows of a store, is put on the weights' device.

        Raises InputError where the last dimension is not D.
        """
        return pad(self.latents(self._tensor(x)).competed, (0, self.n_latents - self.n_enabled))

    def latents(self, x: Tensor) -> Latents:
        """x: (..., D) raw -> f and a, each (..., M): before and after the competition."""
        if x.ndim == 0 or x.shape[-1] != self.d:
            raise InputError(
                f"vectors of shape {tuple(x.shape)} do not fit: this autoencoder takes "
                f"(..., {self.d})"
            )
        return self.kind.encode(self.weights(), self.normalizer.normalize(x).to(self.b_dec.dtype))

    def decode(self, f: Tensor, like: Tensor | npt.NDArray[Any] | None = None) -> Tensor:
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
        like = None if like is None else self._tensor(like)
        enabled = f[..., : self.n_enabled].to(self.b_dec.dtype)
        return self.normalizer.denormalize(self.kind.decode(self.weights(), enabled), like)

    def forward(self, x: Tensor | npt.NDArray[Any]) -> Tensor:
        """x: (..., D) raw -> its reconstruction (..., D), raw."""
        x = self._tensor(x)
        return self.decode(self.encode(x), like=x)

    def save(self, folder: Path | str) -> None:
        """Write sae.safetensors and sae.json, each whole or not at all; equal weights give equal
        bytes. Raises DiskError where the folder cannot be written."""
        weights = {name: tensor.float() for name, tensor in self.named_parameters(recurse=False)}
        local = local_folder(folder, "run folder", RunError)
        write_autoencoder(local, in_memory(weights), self.description())

    def description(self) -> dict[str, Any]:
        """What sae.json holds: all that inference needs beside the weights."""
        return describe(self.kind, self.normalizer, self.n_enabled, self.hook)

    def weights(self) -> dict[str, Tensor]:
        """Weights of the enabled features in training's layout, as views of the parameters."""
        saved = dict(self.named_parameters(recurse=False))
        return prefix(self.kind.weights, self.kind.unpack(saved), self.n_enabled)

    def _tensor(self, x: Tensor | npt.NDArray[Any]) -> Tensor:
        return from_numpy(x).to(self.b_dec.device) if isinstance(x, np.ndarray) else x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to()` and its like call: the kind's running tensors go along to the device."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.kind.to(fn(torch.zeros(())).device)
        return self


def load(run_folder: Path | str, device: torch.device | str = "cpu") -> SparseAutoencoder:
    """The autoencoder of a run folder, in eval mode on `device`.

    Raises RunError (one line) where there is no such folder, no autoencoder in it, or one whose
    files are broken or contradict each other.
    """
    saved = read_autoencoder(Path(run_folder))
    with saved.errors():
        kind = saved.kind()
        sae = SparseAutoencoder(
            saved.weights,
            kind,
            Normalizer.from_json(saved.description["normalization"]),
            n_enabled=saved.description["n_enabled"],
            hook=saved.description["hook"],
        )
    saved.check(kind)
    return sae.to(device)


def _check_shapes(weights: Weights, kind: Kind, n_enabled: int) -> None:
    d, n = kind.plan.d, kind.plan.n
    for name, spec in kind.weights.items():
        saved, expected = spec.saved or name, spec.sizes(d, n)
        expected = expected[::-1] if spec.transposed else expected
        if tuple(weights[saved].shape) != expected:
            raise ValueError(
                f"{saved} has shape {tuple(weights[saved].shape)}, but d = {d} and n = {n} go with "
                f"{expected}"
            )
    if type(n_enabled) is not int or not 1 <= n_enabled <= n:
        raise ValueError(f"n_enabled is {n_enabled!r}, not a whole number from 1 to {n}")
