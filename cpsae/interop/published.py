"""An autoencoder that another program published, as its reader found it, and the one of ours that
computes the same.

Names: D dimensions, N latents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from cpsae.errors import SourceError, first_line
from cpsae.interop.folded import Folded
from cpsae.interop.origin import Origin
from cpsae.json_files import read_object
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.form import FormName
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.tensor_files import load_tensors

KINDS: dict[FormName, str] = {
    "relu": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
}
"""The kind of ours that each form becomes, where its reader knows no nearer one."""
_ONE_BY_ONE = ("relu", "jumprelu", "gated")
"""Forms in which a latent does not hang on the others, so that each can be scaled by itself."""
_UNIT = 1e-6
"""How far from 1 the norm of a decoder row may be that is left as it is: float32 rounds to less."""


@dataclass(frozen=True)
class Published:
    """What a reader found."""

    format: str
    """A name in cpsae.interop.SOURCES."""
    what: str
    """Its class or architecture, as its own program calls it."""
    folded: Folded
    """Its function of rows that `normalizer` has normalised. `kind` is a kind that trains such
    ones, or empty; `numbers` hold the constants that it needs."""
    normalizer: Normalizer
    origin: Origin
    files: tuple[Path, ...]
    """Those that were read."""
    notes: tuple[str, ...] = ()

    def autoencoder(self) -> tuple[SparseAutoencoder, tuple[str, ...]]:
        """The same function, all N latents enabled, with decoder rows of norm 1 where the form
        allows it; and what is to be said of that beside `notes`."""
        folded, said = _unit_rows(self.folded)
        kind_class = load_kind(_kind_of(folded))
        kind = kind_class.from_constants(_constants(folded), folded.d, folded.n)
        names = [spec.saved or name for name, spec in kind_class.weights.items()]
        weights = {name: folded.tensors[name].contiguous() for name in names}
        sae = SparseAutoencoder(weights, kind, self.normalizer, n_enabled=folded.n)
        return sae, said


def _unit_rows(folded: Folded) -> tuple[Folded, tuple[str, ...]]:
    norms = folded.tensors["W_dec"].double().norm(dim=1)
    others = (norms - 1).abs() > _UNIT
    if not others.any():
        return folded, ()
    low, high = float(norms.min()), float(norms.max())
    if folded.form in _ONE_BY_ONE:
        told = f"decoder rows had norms from {low:.4g} to {high:.4g}: they have 1 now, and latents"
        return folded.with_unit_rows(), (f"{told} are as many times larger",)
    told = f"decoder rows have norms from {low:.4g} to {high:.4g}, which stay, as which latents"
    return folded, (f"{told} are chosen hangs on them: `cpsae fit --init` does not take it",)


def _kind_of(folded: Folded) -> str:
    """A batchtopk has one threshold for all, and a whole k."""
    wished, k = folded.kind, folded.numbers.get("k")
    if not wished or folded.form != "jumprelu":
        return wished or KINDS[folded.form]
    threshold = folded.tensors["threshold"]
    alike = bool((threshold == threshold[0]).all())
    fits = isinstance(k, int) and 1 <= k <= folded.n
    return wished if alike and fits else KINDS[folded.form]


def _constants(folded: Folded) -> dict[str, Any]:
    """As `Kind.from_constants` takes them."""
    level = {}
    if "threshold" in folded.tensors:
        level["threshold"] = max(0.0, float(folded.tensors["threshold"][0]))
    return {**level, **folded.numbers}


def read_cfg(path: Path, program: str) -> dict[str, Any]:
    """A JSON object. Raises SourceError."""
    return read_object(path, SourceError, f"give a folder as {program} writes it")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises SourceError."""
    try:
        return load_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({first_line(error)}); fetch it again") from None


def checked(
    path: Path, found: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str
) -> dict[str, Tensor]:
    """The tensors of these names in float32. Raises SourceError where one is missing, too many,
    has another shape, or holds NaN or Inf: a tensor that is left out would change the function."""
    missing, more = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
    if missing or more:
        told = [f"has no tensor {', '.join(missing)}"] if missing else []
        told += [f"has a tensor {', '.join(more)}, which {what} has no place for"] if more else []
        raise SourceError(f"{path}: {' and '.join(told)}; expected {', '.join(shapes)}")
    for name, shape in shapes.items():
        if tuple(found[name].shape) != shape:
            raise SourceError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, expected {shape}; the file "
                "is not of the configuration beside it"
            )
        if not found[name].isfinite().all():
            raise SourceError(f"{path}: {name} holds NaN or Inf; fetch it again")
    return {name: found[name].float() for name in shapes}


def matrix_shape(path: Path, found: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Raises SourceError where there is no such matrix."""
    if name not in found or found[name].ndim != 2:
        there = ", ".join(sorted(found)) or "nothing"
        raise SourceError(f"{path}: expected a matrix {name}; there are {there}")
    rows, columns = found[name].shape
    return rows, columns


def whole(
    path: Path, content: Mapping[str, Any], key: str, check: Callable[[Any], bool] | None = None
) -> int:
    """A count above 0 in a configuration. Raises SourceError."""
    value = content.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < 1
        or (check and not check(value))
    ):
        raise SourceError(f"{path}: {key} is {value!r}, expected a whole number above 0")
    return value


def full(threshold: Tensor, n: int) -> Tensor:
    """One threshold (0-d) for all n latents, in float32, as encoders compare with it."""
    return threshold.reshape(()).float().expand(n).contiguous()


def without_ones(found: Mapping[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """Without a scale of latents that is 1 everywhere. Raises SourceError where it is not."""
    rest = dict(found)
    scale = rest.pop(name, torch.ones(()))
    if not torch.allclose(scale.float(), torch.ones(())):
        raise SourceError(
            f"{path}: {name} is not 1: latents are scaled once more before they are decoded, which "
            "no kind of ours has; fold it into the decoder first"
        )
    return rest


def renamed(folded: Folded, kind: str, **numbers: Any) -> Folded:
    """With a nearer kind and the constants that it needs."""
    return replace(folded, kind=kind, numbers={**folded.numbers, **numbers})
