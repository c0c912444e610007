"""An autoencoder whose weights take raw rows: its normalisation is folded into them.

Names: D dimensions, M enabled features. Features that are not enabled were never trained and have
latents of 0: they are left out, and the others keep their numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cpsae.errors import ExportError
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.form import IN_UNITS, Form, FormName
from cpsae.sae.normalization import PER_ROW, SCALED


@dataclass(frozen=True)
class Folded:
    """x_hat = a W_dec + b_dec, a as the form says (cpsae.sae.form), of x: raw rows, or those that
    `rows` normalises one by one."""

    kind: str
    form: FormName
    rows: str
    """`none`, `layer` or `layer-variance`."""
    tensors: Mapping[str, Tensor]
    """float32: W_enc (D, M), b_enc (M,) but for `gated`, W_dec (M, D), b_dec (D,), and those (M,)
    that the form has."""
    numbers: Mapping[str, Any]
    """k, temperature, over, inhibition, first_threshold, threshold: those that the form has."""
    latent_scale: float
    """Latents are this many times those of `cpsae.load(run).encode`."""

    @property
    def d(self) -> int:
        """D."""
        return self.tensors["W_enc"].shape[0]

    @property
    def n(self) -> int:
        """M."""
        return self.tensors["W_enc"].shape[1]

    def taking_centred(self) -> "Folded":
        """The same function for a program that encodes x - b_dec: biases on W_enc x give back what
        that takes away."""
        return self._shifted(1.0)

    def taking_raw(self) -> "Folded":
        """The inverse, of a program's own weights: they encode x - b_dec, these x."""
        return self._shifted(-1.0)

    def times(self, factor: float) -> "Folded":
        """The function of rows that are `factor` times as long."""
        tensors = {
            name: (tensor.double() * factor).float() if name in IN_UNITS else tensor
            for name, tensor in self.tensors.items()
        }
        numbers = {
            name: value * factor if name in IN_UNITS else value
            for name, value in self.numbers.items()
        }
        scale = self.latent_scale * factor
        return replace(self, tensors=tensors, numbers=numbers, latent_scale=scale)

    def with_unit_rows(self) -> "Folded":
        """The same function with decoder rows of norm 1: each latent is as many times larger as its
        row was long. Not for forms whose latents are compared with each other; one threshold for
        all may become one each. A row of zeros stays."""
        norms_M = self.tensors["W_dec"].double().norm(dim=1)
        norms_M = norms_M.where(norms_M > 0, 1.0)
        changed = {
            name: self.tensors[name].double() * norms_M
            for name in ("W_enc", "b_enc", "b_gate", "b_mag", "threshold")
            if name in self.tensors
        }
        changed["W_dec"] = self.tensors["W_dec"].double() / norms_M[:, None]
        floats = {name: tensor.float() for name, tensor in changed.items()}
        return replace(self, tensors={**self.tensors, **floats})

    def _shifted(self, sign: float) -> "Folded":
        """With biases that are larger by `sign` times what W_enc makes of b_dec."""
        shift = sign * (self.tensors["W_enc"].double().T @ self.tensors["b_dec"].double())
        gain = self.tensors["r_mag"].double().exp() if self.form == "gated" else 1.0
        gains = {"b_enc": 1.0, "b_gate": 1.0, "b_mag": gain}
        moved = {
            name: (self.tensors[name].double() + gain * shift).float()
            for name, gain in gains.items()
            if name in self.tensors
        }
        return replace(self, tensors={**self.tensors, **moved})


def fold(sae: SparseAutoencoder, rows_scale: float = 1.0) -> Folded:
    """sae: on any device. rows_scale: of a per-row normalisation, how many times as long as ours
    the rows are that the target's own normalisation gives; one scale for all rows is folded away.

    All forms are homogeneous: what is in the units of x is multiplied, W_enc and W_dec stay, whose
    rows of unit norm other programs expect. Raises ExportError where the kind says no form.
    """
    w = {name: tensor.detach().cpu() for name, tensor in sae.weights().items()}
    form = sae.kind.form(w)
    if form is None:
        raise ExportError(
            f"kind '{sae.kind.name}': does not say what it computes in terms that other programs "
            "have, so it cannot be exported; give its class a method `form` (cpsae.sae.form)"
        )
    name = sae.normalizer.name
    factor = sae.normalizer.scale if name in SCALED else rows_scale if name in PER_ROW else 1.0
    biases = ("b_dec",) if form.name == "gated" else ("b_enc", "b_dec")
    levels = {**{bias: w[bias] for bias in biases}, **form.levels}
    scaled = {key: value.detach().cpu().double() * factor for key, value in levels.items()}
    fixed = {key: value for key, value in form.fixed.items() if isinstance(value, Tensor)}
    tensors = {
        "W_enc": w["w_enc"].T,
        "W_dec": w["w_dec"],
        **{key: value for key, value in scaled.items() if value.ndim},
        **fixed,
    }
    return Folded(
        kind=sae.kind.name,
        form=form.name,
        rows=name if name in PER_ROW else "none",
        tensors={key: value.detach().cpu().float().contiguous() for key, value in tensors.items()},
        numbers=_numbers(form, scaled),
        latent_scale=factor,
    )


def _numbers(form: Form, scaled: Mapping[str, Tensor]) -> dict[str, Any]:
    fixed = {key: value for key, value in form.fixed.items() if not isinstance(value, Tensor)}
    return {**fixed, **{key: float(value) for key, value in scaled.items() if not value.ndim}}


def refuse_rows(sae: SparseAutoencoder, target: str, instead: str) -> None:
    """Raises ExportError where rows are normalised one by one, which `target` has no place for."""
    if sae.normalizer.per_row:
        raise ExportError(
            f"normalize={sae.normalizer.name}: scales each row by itself, which {target} has no "
            f"place for; of normalisations it takes unit, sqrt-d and none: {instead}"
        )


def refuse_form(folded: Folded, target: str, takes: Mapping[str, Any], instead: str) -> None:
    """Raises ExportError where `target` has no place for what the kind computes."""
    if folded.form not in takes:
        raise ExportError(
            f"kind '{folded.kind}' ({folded.form} at inference): {target} has no place for it; it "
            f"takes {', '.join(takes)}: {instead}"
        )


def layer_norm_scale(name: str, d: int) -> float:
    """How many times as long as our rows are those divided by their standard deviation over d - 1:
    norm sqrt(d - 1), where `layer` has 1 and `layer-variance` sqrt(d)."""
    return math.sqrt(d - 1) / (math.sqrt(d) if name == "layer-variance" else 1.0)


def as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A file of safetensors, without metadata: equal tensors give equal bytes."""
    import safetensors.torch

    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def saved_by_torch(tensors: Mapping[str, Tensor]) -> bytes:
    """What `torch.save` writes of them: a pickle, which `torch.load(weights_only=True)` reads."""
    import io

    buffer = io.BytesIO()
    torch.save({name: tensor.clone() for name, tensor in tensors.items()}, buffer)
    return buffer.getvalue()
