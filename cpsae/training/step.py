"""What is trained, and one update of it, in the order that METHOD section 3 gives.

Names: B rows, D dimensions, M enabled features (n_(t-1) in the paper).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.group import ALONE, Group
from cpsae.sae.kind import Kind, RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.sae.losses import sparsity
from cpsae.sae.normalization import Normalizer
from cpsae.sae.progressive import Enabling, Importance
from cpsae.tensor_files import Streamed
from cpsae.training.births import Births
from cpsae.training.choose_rule import rule_for
from cpsae.training.optimizer import PrefixAdam
from cpsae.training.rules import Objective, StepRule
from cpsae.training.settings import FitSettings

_EARLY_STEPS = 100
_TOTAL = "loss"
"""The loss goes through the group with the gradients; no weight is called so."""
_KIND = "kind."
"""What the names of a kind's running tensors begin with in a checkpoint."""


@dataclass(frozen=True)
class StepResult:
    """Figures of one update, in normalised space."""

    loss: float
    parts: dict[str, float]
    """mse, l1 (the mean sum of |a|), and what the kind's loss adds."""
    l0: float
    utilisation: float
    """rho after the update."""
    n_enabled: int
    """Features that took part."""
    growth: int
    """Features enabled after the update."""
    figures: dict[str, float | None]
    """The kind's own, as the update used them; temperature is None where there is none."""

    def as_json(self) -> dict[str, float | int | None]:
        """Flat, for metrics.jsonl."""
        return {
            "loss": self.loss,
            **self.parts,
            "l0": self.l0,
            "utilisation": self.utilisation,
            "n_enabled": self.n_enabled,
            "growth": self.growth,
            **self.figures,
        }


class Trainable:
    """An autoencoder in training: everything that an update reads and changes."""

    def __init__(
        self,
        weights: dict[str, Tensor],
        kind: Kind,
        normalizer: Normalizer,
        settings: FitSettings,
        *,
        bfloat16: bool = False,
        rule: StepRule | None = None,
        group: Group = ALONE,
        n_enabled: int | None = None,
    ) -> None:
        """weights: of all n features, or of those that this process of the group holds, by the
        names of `kind.weights`, on the run's device. rule: by default the one that is faster there.
        group: the processes that train it together. n_enabled: features enabled at first, where
        that is not as the settings say."""
        n, device = kind.plan.n, weights["b_dec"].device
        self.settings = settings
        self.normalizer = normalizer
        self.group = group
        self.kind = kind.join(group).to(device)
        self.objective = Objective(self.kind, settings.center, bfloat16)
        self.rule = rule or rule_for(self.kind, device)
        self.enabling = Enabling.from_settings(settings, n, kind.plan.steps)
        if n_enabled is not None:
            self.enabling.begin_at(n_enabled)
        self.importance = Importance.from_settings(settings, group.features(n), device)
        enabled = group.features(self.enabling.n_enabled)
        self.optimizer = PrefixAdam(kind.weights, weights, settings, enabled, group)
        self.births = Births(settings, kind.plan, settings.seed, device, group)
        self.device = device
        self.step = 0
        self._broken_at = torch.zeros((), dtype=torch.int64, device=device)
        self.feature_products = 0
        """Sum over updates of the features that took part, times the products that it had."""
        self.early_loss = torch.zeros((), dtype=torch.float64, device=device)
        """Sum of the losses of the first 100 updates (reading 17)."""

    def update(self, rows_BD: Tensor, lr: float, measure: bool = True) -> StepResult | None:
        """One update from raw rows (B, D) of any float dtype, this process's of the batch, at this
        learning rate.

        Its figures are given only where asked for: to read them is to wait for the GPU.
        """
        self.step += 1
        x_BD = self.normalizer.normalize(rows_BD.to(self.device, non_blocking=True))
        figures = {"temperature": None, **self.kind.figures()} if measure else {}
        n_enabled = self.enabling.n_enabled
        self.feature_products += n_enabled * self.kind.products_now()
        step = self.rule(self.objective, self.optimizer.active, x_BD)
        loss = self.group.once(step.loss.total)
        per_feature = self.optimizer.per_feature()
        gradients = self.group.combined({**step.gradients, _TOTAL: loss}, per_feature)
        loss = gradients.pop(_TOTAL)
        if self.step <= _EARLY_STEPS:
            self.early_loss += loss
        first = (self._broken_at == 0) & ~loss.isfinite()
        self._broken_at += self.step * first
        self.optimizer.step(gradients, lr, skip=(self._broken_at > 0).float())
        self.kind.updates = self.step
        indicator = self.importance.indicator(step.latents.raw, self.group)
        rho = self.importance.update(indicator, self.group)
        self.kind.after_step(self.step, rho, step.latents)
        added = self.enabling.advance(self.step, rho)
        new = range(n_enabled, n_enabled + added)
        born = self.births.after_update(
            self.step, new, x_BD, step.latents, self.objective, self.optimizer
        )
        if born:  # the batch was reconstructed once more
            self.feature_products += 2 * n_enabled
        if added:
            self.optimizer.enable(self.group.features(self.enabling.n_enabled))
        if not measure:
            return None
        a_BM, of_all = step.latents.competed, self.group.sum_of_features
        l0 = of_all((a_BM != 0).sum().double() / len(x_BD))
        parts = self.group.mean({"l0": l0, "l1": of_all(sparsity(a_BM)), **step.loss.parts})
        l0 = parts.pop("l0")
        return StepResult(
            loss=loss.item(),
            parts={name: part.item() for name, part in parts.items()},
            l0=l0.item(),
            utilisation=float(rho),
            n_enabled=n_enabled,
            growth=added,
            figures=figures,
        )

    def initial_loss(self) -> float:
        """Mean loss of the first 100 updates, or of all so far (Table 1's "Initial Loss")."""
        return float(self.early_loss) / max(1, min(self.step, _EARLY_STEPS))

    def flops(self, batch_size: int) -> int:
        """Floating-point operations of the matrix products of all updates so far, on all rows of
        their batches: 2 * B * D * M for each, also where zeros were left out of one."""
        return 2 * batch_size * self.kind.plan.d * self.feature_products

    def broken_at(self) -> int:
        """The first update whose loss was no finite number; 0: none was. From it on no weight is
        changed, without waiting for the GPU to say so."""
        return int(self._broken_at)

    def finite(self) -> bool:
        """Whether every weight is a number; a finite loss says nothing of the update after it."""
        return all(bool(weight.isfinite().all()) for weight in self.optimizer.weights.values())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exact resume needs: tensors by name, which the next update changes, and what JSON
        can hold. Of what is `per_feature`, what this process holds."""
        tensors = {**self.optimizer.tensors(), **self.importance.state(), **self.births.state()}
        tensors["early_loss"] = self.early_loss
        tensors |= {_KIND + name: tensor for name, tensor in self.kind.tensors.items()}
        state = {**self.enabling.state(), "feature_products": self.feature_products}
        return tensors, state

    def per_feature(self) -> set[str]:
        """Which of the tensors of `state` have a row for each feature."""
        of_kind = {_KIND + name for name, spec in self.kind.state.items() if spec.per_feature}
        return {
            *self.optimizer.per_feature(),
            *self.importance.state(),
            *self.births.state(),
        } | of_kind

    def restore(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take back what `state` gave after update `step`. tensors: those of all features, which
        the leader of the group alone has to give."""
        self.step = self.kind.updates = step
        self.enabling.load_state(state)
        self.feature_products = int(state["feature_products"])
        per_feature, leads = self.per_feature(), self.group.is_leader
        for name, own in self.state()[0].items():
            self.group.hand_out(tensors[name] if leads else None, own, name in per_feature)
        self.optimizer.restored(self.group.features(self.enabling.n_enabled))

    def whole_state(self) -> dict[str, Streamed]:
        """The tensors of `state`, of all features, for the leader of the group; all call it, and go
        through it in the same order."""
        n, per_feature = self.kind.plan.n, self.per_feature()
        return {
            name: self._whole(tensor, n, 0 if name in per_feature else None)
            for name, tensor in self.state()[0].items()
        }

    def whole_autoencoder(self) -> dict[str, Streamed]:
        """What sae.safetensors holds, centring folded in, in the same way."""
        weights = _folded(self.kind, self.optimizer.weights, self.settings.center)
        packed = self.kind.pack({name: weight.float() for name, weight in weights.items()})
        which = {
            spec.saved or name: int(spec.transposed) if spec.per_feature else None
            for name, spec in self.kind.weights.items()
        }
        n = self.kind.plan.n
        return {name: self._whole(tensor, n, which[name]) for name, tensor in packed.items()}

    def _whole(self, own: Tensor, n: int, features: int | None) -> Streamed:
        shape = list(own.shape)
        if features is not None:
            shape[features] = n
        return Streamed(own.dtype, tuple(shape), partial(self.group.blocks, own, n, features))

    def autoencoder(self, hook: dict[str, Any]) -> SparseAutoencoder:
        """A copy for inference, centring folded in."""
        return SparseAutoencoder.from_training(
            _folded(self.kind, self.optimizer.weights, self.settings.center),
            self.kind,
            n_enabled=self.enabling.n_enabled,
            normalizer=self.normalizer,
            hook=hook,
        )


def autoencoder_of(
    tensors: Mapping[str, Tensor], kind: Kind, center: bool, **rest: Any
) -> SparseAutoencoder:
    """The autoencoder in what `Trainable.state` gave, for inference. kind: one of the run, whose
    running tensors are set; rest: as `SparseAutoencoder.from_training` has it. KeyError, ValueError
    or RuntimeError where they do not fit each other."""
    for name, tensor in kind.tensors.items():
        tensor.copy_(tensors[_KIND + name])
    # as they lie in a file, products may round in another way than as they lay in training
    weights = {name: tensors[name].clone() for name in kind.weights}
    return SparseAutoencoder.from_training(_folded(kind, weights, center), kind, **rest)


def schedule_lengths(settings: FitSettings, plan: RunPlan) -> dict[str, float]:
    """What hangs on the length of a run beside the learning rate, by setting: its kind's, that of
    enabling and of births."""
    return {
        **load_kind(settings.kind)(settings.method, plan).schedule_lengths(),
        **Enabling.from_settings(settings, plan.n, plan.steps).schedule_lengths(),
        **Births(settings, plan, settings.seed).schedule_lengths(),
    }


def _folded(kind: Kind, weights: Mapping[str, Tensor], center: bool) -> Mapping[str, Tensor]:
    return kind.centred(weights) if center else weights
