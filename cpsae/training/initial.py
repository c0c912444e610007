"""Going on from the autoencoder of another run: what of it a new run begins with, so that both are
the same function of raw rows at step 0.

Names: N features, M enabled ones, D dimensions.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cpsae.errors import RunError, SettingsError
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.form import IN_UNITS
from cpsae.sae.kind import Kind
from cpsae.sae.normalization import PER_ROW, Normalizer
from cpsae.training.facts import Facts
from cpsae.training.settings import FitSettings

_WEIGHT, _STATE = "initial.", "initial_kind."
"""What the names of weights and running tensors begin with in start.safetensors."""
_UNIT = 1e-3
"""How far from 1 the norms of decoder rows may be, which training keeps there: bfloat16 rounds to
less."""


@dataclass(frozen=True)
class Initial:
    """The run that is gone on from."""

    path: Path
    fingerprint: str
    """SHA-256 of its two files."""
    sae: SparseAutoencoder | None
    """None where it is gone, and the run that goes on from it was begun before."""

    def found(self) -> SparseAutoencoder:
        """Raises RunError where it is gone."""
        if self.sae is None:
            raise RunError(f"{self.path}: --init: is not there any more; restore it from a copy")
        return self.sae


def refuse_unfit_initial(initial: Initial, settings: FitSettings, d: int) -> None:
    """Raises SettingsError, listing each, where what is trained is no continuation of it."""
    wrong = list(_misfits(initial.found(), settings, d))
    if wrong:
        raise SettingsError(f"--init {initial.path}: does not fit: {'; '.join(wrong)}")


def _misfits(sae: SparseAutoencoder, settings: FitSettings, d: int) -> Iterator[str]:
    if sae.d != d:
        yield f"it takes rows of d = {sae.d}, the store's have d = {d}"
    if sae.kind.name != settings.kind:
        yield f"its kind is {sae.kind.name}, not {settings.kind} (--preset {sae.kind.name})"
    n = settings.n_latents or d
    if sae.n_latents != n:
        yield f"it has {sae.n_latents} latents, not {n} (--n-latents {sae.n_latents})"
    own, asked = sae.normalizer.name, settings.normalize
    if (own in PER_ROW) != (asked in PER_ROW):
        yield (
            f"its rows are normalised by {own}, not {asked}, and one scale for all rows cannot be "
            f"turned into one each (--set normalize={own})"
        )
    elif own != asked and not _can_be_scaled(sae):
        yield f"its kind does not say what is in the units of rows (--set normalize={own})"
    if sae.n_enabled < sae.n_latents and settings.growth == "none":
        yield (
            f"{sae.n_enabled} of its {sae.n_latents} features are enabled, and with growth = none "
            "the others would never be (--set growth=hybrid)"
        )
    norms_M = sae.W_dec[: sae.n_enabled].detach().norm(dim=1)
    if ((norms_M - 1).abs() > _UNIT).any() and norms_M.max() > 0:
        yield (
            f"its decoder rows have norms from {norms_M.min():.4g} to {norms_M.max():.4g}, and "
            "training keeps them at 1"
        )


def begun_from(initial: Initial, settings: FitSettings, found: Facts) -> Facts:
    """The facts of a run that begins with it. One whose rows are normalised alike keeps its own
    scale, whatever the store's rows would give; its features are enabled as far as they were."""
    sae = initial.found()
    own = sae.normalizer
    normalizer = own if own.name == settings.normalize else found.normalizer
    return replace(found, normalizer=normalizer, n_enabled=sae.n_enabled)


def start_from(initial: Initial, settings: FitSettings, facts: Facts) -> dict[str, Tensor]:
    """What start.safetensors holds of it: weights (all N features) in training's layout, and the
    running tensors that inference knows. In the units of the new run's normalised rows."""
    sae = initial.found()
    factor = _length(facts.normalizer, sae.d) / _length(sae.normalizer, sae.d)
    kind, specs = sae.kind, sae.kind.weights
    saved = {name: weight.detach() for name, weight in sae.named_parameters(recurse=False)}
    weights = {
        name: weight * factor if factor != 1 and (specs[name].saved or name) in IN_UNITS else weight
        for name, weight in kind.unpack(saved).items()
    }
    if settings.center:  # the encoder will see x - b_dec
        turned = kind.centred({**weights, "b_dec": -weights["b_dec"]})
        weights = {**turned, "b_dec": weights["b_dec"]}
    state = {
        name: kind.tensors[name] * (factor if factor != 1 and spec.saved in IN_UNITS else 1)
        for name, spec in kind.state.items()
        if spec.saved
    }
    return {
        **{_WEIGHT + name: weight.contiguous().clone() for name, weight in weights.items()},
        **{_STATE + name: tensor.clone() for name, tensor in state.items()},
    }


def taken(kind: Kind, start: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights that `start_from` gave, by the names of the kind's, whose running tensors are set
    to what it gave; None where `start` is of a run that begins by itself."""
    weights = {name: start.get(_WEIGHT + name) for name in kind.weights}
    if any(weight is None for weight in weights.values()):
        return None
    for name, tensor in kind.tensors.items():
        if _STATE + name in start:
            tensor.copy_(start[_STATE + name])
    return {name: weight for name, weight in weights.items() if weight is not None}


def _length(normalizer: Normalizer, d: int) -> float:
    """How long a row is, of which each normaliser makes the same times a number."""
    if normalizer.name in PER_ROW:
        return math.sqrt(d) if normalizer.name == "layer-variance" else 1.0
    return 1 / normalizer.scale


def _can_be_scaled(sae: SparseAutoencoder) -> bool:
    """Whether all that its kind has in the units of rows goes by names that say so."""
    with torch.no_grad():
        form = sae.kind.form(sae.weights())
    specs = (*sae.kind.weights.items(), *sae.kind.state.items())
    names = {spec.saved or name for name, spec in specs}
    return form is not None and form.levels.keys() <= names & set(IN_UNITS)
