"""What a kind of autoencoder is. Everything in which two kinds differ is the kind's own: its
settings, weights, running tensors, encoder, decoder and loss.

A kind is one class: in a file of cpsae/sae/kinds, or in anybody's package, which declares it as an
entry point of the group `cpsae.kinds`. Optimizer, initialisation, checkpoints, files and inference
loop over its `weights` and `state` and know nothing else of it.

Names: B rows, D dimensions, N features, M enabled features (a prefix of N), f encoder outputs
before and a after competition, w weights by name.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsae.config import Settings
from cpsae.sae.form import Form
from cpsae.sae.group import ALONE, Group
from cpsae.sae.latents import Latents as Latents
from cpsae.sae.losses import Loss, reconstruction

Weights = Mapping[str, Tensor]

COMMON_PRESET: dict[str, Any] = {
    "growth": "none",
    "normalize": "unit",
    "init": "data",
    "lr": 8e-4,
    "lr_scaling": "width",
    "lr_decay": 0.2,
    "revive_every": 250,
}
"""How kinds are trained that are compared with each other (docs/method.md: what of it is whose):
dotted keys of settings."""


class KindSettings(Settings):
    """Settings of one kind alone; a kind's `Settings` adds fields to it."""

    preset: ClassVar[dict[str, Any]] = COMMON_PRESET
    """What the preset of the kind's own name sets beside `kind`: dotted keys of any setting."""


@dataclass(frozen=True)
class Spec:
    """One tensor of a kind: its shape, how training treats it, and how it is saved."""

    shape: str
    """One letter a dimension: n features, d dimensions of a row; "" is a scalar. A shape that
    begins with n has an enabled prefix."""
    start: float = 0.0
    """The value everywhere before the first update."""
    dtype: torch.dtype = torch.float32
    decay: bool = False
    """Weights only: whether weight decay applies."""
    unit_rows: bool = False
    """Weights only: whether rows are kept at unit L2 norm."""
    saved: str | None = None
    """Weights: their name in sae.safetensors, where it is another one. State: the name of a
    scalar in sae.json, for inference; None where inference does not need it."""
    transposed: bool = False
    """Weights only: whether the file holds the transpose."""

    @property
    def per_feature(self) -> bool:
        """Whether the first dimension counts features."""
        return self.shape.startswith("n")

    def sizes(self, d: int, n: int) -> tuple[int, ...]:
        """The shape in numbers."""
        return tuple({"n": n, "d": d}[letter] for letter in self.shape)

    def tensor(self, d: int, n: int) -> Tensor:
        """A tensor of this shape and dtype, `start` everywhere, on the CPU."""
        return torch.full(self.sizes(d, n), self.start, dtype=self.dtype)


STANDARD: dict[str, Spec] = {
    "w_enc": Spec("nd", decay=True, saved="W_enc", transposed=True),
    "b_enc": Spec("n"),
    "w_dec": Spec("nd", decay=True, unit_rows=True, saved="W_dec"),
    "b_dec": Spec("d"),
}
"""Encoder and decoder. In training one row is one feature, so that an enabled prefix is one
contiguous piece of memory; files have SAELens' names and layout, W_enc being (d, n)."""


@dataclass(frozen=True)
class RunPlan:
    """What a kind may know of the run it is trained in. At inference only d and n count."""

    d: int
    n: int
    steps: int = 0
    """Updates of the whole run."""
    rows: int = 0
    """Training rows of the whole run."""
    schedule_scale: float = 1.0
    """By how much schedules are shortened, as `scale_schedule` asks."""
    mse_reduction: Literal["sum", "mean"] = "sum"


class Kind(ABC):
    """One kind of autoencoder, with its running tensors.

    The same `encode` and `decode` serve training and inference; only a kind whose training looks
    at the whole batch overrides `encode_batch`. Results depend on arguments, settings and running
    tensors alone: a kind that needs random numbers seeds a generator of its own.
    """

    name: ClassVar[str]
    """As `--preset` and sae.json name it; the file in cpsae/sae/kinds, with _ for -."""
    Settings: ClassVar[type[KindSettings]] = KindSettings
    inference_settings: ClassVar[tuple[str, ...]] = ()
    """Keys of its settings that sae.json must hold."""
    weights: ClassVar[Mapping[str, Spec]] = STANDARD
    """What is trained, saved and checkpointed; w_enc, b_enc, w_dec and b_dec must be among it."""
    products: ClassVar[int] = 5
    """Matrix products of (B, D) with (D, M) in an update, those of the gradients included; a kind
    whose updates differ says it in `products_now`."""
    state: ClassVar[Mapping[str, Spec]] = {}
    """What is not trained but changes from step to step: checkpointed, on the run's device."""

    works_in_groups: ClassVar[bool] = False
    """Whether several processes can train it, each with a share of every batch: whatever it takes
    from a batch, other than means over rows in the loss, it asks `group` for."""
    works_split: ClassVar[bool] = False
    """The same, each with a part of the features: what it takes from all of them, it asks for."""

    settings: Any
    """An instance of `Settings`; a subclass narrows this annotation."""

    def __init__(self, settings: Any, plan: RunPlan) -> None:
        """settings: an instance of `Settings`. Raises SettingsError where they do not fit."""
        self.settings = settings
        self.plan = plan
        self.updates = 0
        """Made so far; kept up to date by what trains it, also where that goes on."""
        self.group: Group = ALONE
        """Who trains it together."""
        self.tensors = {name: spec.tensor(plan.d, plan.n) for name, spec in self.state.items()}
        """The running tensors, by the names in `state`."""

    def join(self, group: Group) -> Self:
        """Be trained by these processes, here with the features that this one of them holds."""
        self.group = group
        for name, spec in self.state.items():
            if spec.per_feature:
                self.tensors[name] = group.part(self.tensors[name])
        return self

    @abstractmethod
    def encode(self, w: Weights, x: Tensor) -> Latents:
        """x: (..., D) normalised; w: weights of the M enabled features. Row by row."""

    def encode_batch(self, w: Weights, x_BD: Tensor) -> Latents:
        """`encode` in training, for kinds that look at the whole batch there."""
        return self.encode(w, x_BD)

    def decode(self, w: Weights, a: Tensor) -> Tensor:
        """a: (..., M) -> (..., D), normalised."""
        own = F.linear(a, w["w_dec"].T, self.group.once(w["b_dec"]))
        return self.group.sum_of_features(own)

    def loss(self, w: Weights, x_BD: Tensor, latents: Latents, x_hat_BD: Tensor) -> Loss:  # noqa: ARG002
        """What training minimises: squared error, to which a kind adds terms of its own. The
        names of their parts become keys of metrics.jsonl."""
        mse = self.mse(x_BD, x_hat_BD)
        return Loss(mse, {"mse": mse})

    def mse(self, x_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
        """Squared error as `mse_reduction` asks (reading 13)."""
        return reconstruction(x_BD, x_hat_BD, self.plan.mse_reduction)

    def begin(self, w: Weights, features: Tensor, directions_KD: Tensor, level_K: Tensor) -> None:
        """Let features begin anew, in place: encoder and decoder along the given directions (unit
        norm), each firing where a row's projection on its direction is above its level. All else
        that they have begins as its Spec says.

        w: weights of enabled features; features: (K,) their numbers in it, int64.
        """
        for name, spec in self.weights.items():
            if spec.per_feature:
                w[name][features] = spec.start
        for name, spec in self.state.items():
            if spec.per_feature:
                self.tensors[name][features] = torch.tensor(spec.start).to(spec.dtype)
        w["w_enc"][features] = directions_KD
        w["w_dec"][features] = directions_KD
        w["b_enc"][features] = -level_K

    def centred(self, w: Weights) -> dict[str, Tensor]:
        """Weights that give for x what `w` gives for x - b_dec: the encoder's bias takes it in, so
        that x itself is left alone. A kind with other biases on W_enc x overrides this."""
        return {**w, "b_enc": w["b_enc"] - w["w_enc"] @ w["b_dec"]}

    def after_step(self, step: int, rho: Tensor, latents: Latents) -> None:  # noqa: B027
        """Called once after update `step` (from 1), before features are enabled and `updates` is
        that: rho is the utilisation after it (0-d float64), latents (B, M) are those of its batch,
        detached."""

    def share_kept(self) -> float:
        """About which share of a batch's latents is not 0, the same throughout a run; below 1
        for kinds that have `entries`."""
        return 1.0

    def entries(self, w: Weights, latents: Latents) -> Tensor | None:  # noqa: ARG002
        """(E,) int64, row * M + feature of every latent that may not be 0, or whose choice has a
        gradient, each once; None where they are not listed. A kind may list them where
        a = f there or 0, and f = ReLU(W_enc x + b_enc)."""
        return latents.entries

    def pull_entries(
        self,
        w: Weights,  # noqa: ARG002
        latents: Latents,
        entries_E: Tensor,
        g_a_E: Tensor,
        g_gate_E: Tensor | None,  # noqa: ARG002
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """From gradients with respect to a, and to the gate of kinds that have one, to those with
        respect to pre-activations, all at `entries`, and to weights of the kind's own."""
        return g_a_E.masked_fill(latents.competed.flatten()[entries_E] <= 0, 0), {}

    def products_now(self) -> int:
        """Products of the update after `updates`."""
        return self.products

    def schedule_lengths(self) -> dict[str, float]:
        """What of its training hangs on the length of the run (`plan.rows`, `schedule_scale`), by
        setting. Where two runs have the same here, the shorter one is the longer one's beginning,
        so that it can go on; a kind that looks at either must override this."""
        return {}

    def figures(self) -> dict[str, float]:
        """Its own numbers for metrics.jsonl, as the next update will use them."""
        return {}

    def form(self, w: Weights) -> Form | None:  # noqa: ARG002
        """What `encode` computes with these weights of the M enabled features, for other programs;
        None where it is none of the forms they have."""
        return None

    def to(self, device: torch.device | str) -> Self:
        """Move the running tensors, which keep their dtypes."""
        self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self

    def pack(self, w: Weights) -> dict[str, Tensor]:
        """Trained weights (all N features) as sae.safetensors holds them, by the names there."""
        return {
            spec.saved or name: w[name].T if spec.transposed else w[name]
            for name, spec in self.weights.items()
        }

    def unpack(self, saved: Weights) -> dict[str, Tensor]:
        """The inverse of `pack`, over the same memory where that is possible."""
        return {
            name: saved[spec.saved or name].T if spec.transposed else saved[spec.saved or name]
            for name, spec in self.weights.items()
        }

    def constants(self) -> dict[str, Any]:
        """What sae.json must hold for inference, as JSON values."""
        scalars = {
            spec.saved: float(self.tensors[name]) for name, spec in self.state.items() if spec.saved
        }
        return {**{key: getattr(self.settings, key) for key in self.inference_settings}, **scalars}

    @classmethod
    def from_constants(cls, constants: Mapping[str, Any], d: int, n: int) -> Self:
        """One for inference, from what `constants` gave (other keys may be there too).

        Raises KeyError, TypeError or ValueError where they are malformed.
        """
        settings = cls.Settings.model_validate({k: constants[k] for k in cls.inference_settings})
        kind = cls(settings, RunPlan(d, n))
        for name, spec in cls.state.items():
            if spec.saved:
                kind.tensors[name].fill_(finite(constants, spec.saved))
        return kind


def finite(constants: Mapping[str, Any], key: str) -> float:
    """A number of sae.json. Raises KeyError, TypeError or ValueError where it is none."""
    value = float(constants[key])
    if not math.isfinite(value):
        raise ValueError(f"{key} is {value}, not a finite number")
    return value


def prefix(specs: Mapping[str, Spec], w: Weights, m: int) -> dict[str, Tensor]:
    """The tensors of the first m features, as views."""
    return {name: w[name][:m] if specs[name].per_feature else w[name] for name in w}
