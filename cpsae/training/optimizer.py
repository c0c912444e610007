"""Adam over an enabled prefix of the features: torch's own fused update on views that grow.

Rows of disabled features are outside the views, so they get no gradient, no momentum, no decay;
the step count, and with it the bias correction, is the run's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from cpsae.sae.group import ALONE, Group
from cpsae.sae.initialization import unit_rows
from cpsae.sae.kind import Spec, prefix
from cpsae.training.settings import TrainSettings

_MOMENTS = ("exp_avg", "exp_avg_sq")
_FROZEN = {"none": (), "encoder": ("w_enc",), "decoder": ("w_dec",)}


class PrefixAdam:
    """Owns the weights of all n features, or of those that this process of a group holds, and their
    moments; trains the first `n_enabled` of these, but for the matrix that is `frozen`.

    `active` holds the views that take part by name, as leaves that ask for gradients unless they
    are frozen: of those whose shape begins with n the first `n_enabled` entries, the others whole.
    """

    def __init__(
        self,
        specs: Mapping[str, Spec],
        weights: Mapping[str, Tensor],
        settings: TrainSettings,
        n_enabled: int,
        group: Group = ALONE,
    ) -> None:
        self.specs = specs
        self.group = group
        self.weights = dict(weights)
        self.moments = {
            (name, moment): torch.zeros_like(weight)
            for name, weight in self.weights.items()
            for moment in _MOMENTS
        }
        frozen = _FROZEN[settings.frozen]
        self.steps = {name: self._new_step(weight) for name, weight in self.weights.items()}
        self.clip = settings.clip
        decay = settings.weight_decay if settings.optimizer == "adamw" else 0.0
        trained = self._trained = [name for name in specs if name not in frozen]
        decayed = [name for name in trained if specs[name].decay]
        others = [name for name in trained if name not in decayed]
        self._unit = [name for name in trained if specs[name].unit_rows]
        self._groups = [(decayed, decay), (others, 0.0)]
        self.enable(n_enabled)

    @staticmethod
    def _new_step(weight: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.float32, device=weight.device)

    def enable(self, n_enabled: int) -> None:
        """Let the first `n_enabled` features take part, with the moments that they have."""
        self.n_enabled = n_enabled
        # New leaves, not other data in the old ones: as long as a graph of the last update is not
        # collected, torch holds the gradients of a leaf to the shape that it had then.
        self.active = {
            name: torch.nn.Parameter(self._prefix(name, w), requires_grad=name in self._trained)
            for name, w in self.weights.items()
        }

    def prefix(self, m: int) -> dict[str, Tensor]:
        """The weights of the first m features, as views that ask for no gradient."""
        return prefix(self.specs, self.weights, m)

    def forget(self, features: Tensor) -> None:
        """Let the moments of these features (numbers, int64) begin anew: the first at 0, the second
        at the mean of those that are enabled in the whole group. From 0, with the bias correction
        of the run's step, a feature's first updates would be three times the learning rate in every
        coordinate."""
        for (name, which), moment in self.moments.items():
            if self.specs[name].per_feature:
                enabled = moment[: self.n_enabled]
                second = which == "exp_avg_sq"
                moment[features] = self.group.mean_of_features(enabled) if second else 0

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], lr: float, skip: Tensor | None = None) -> None:
        """One update along gradients by name, in the shapes of `active`; they may be changed. Rows
        of unit norm stay so: the part of the gradient along a row would only change its norm.
        skip: a number (0-d float32); 1: change nothing.

        Without decay AdamW is Adam. The function, not the class: to make a torch.optim.Optimizer
        is to import torch's compiler, which takes seconds.
        """
        for name in self._unit:
            weight, gradient = self.active[name], gradients[name]
            along = (gradient * weight).sum(dim=1, keepdim=True)
            gradient.addcmul_(along, weight, value=-1)
        if self.clip:
            gradients = self._clipped(gradients)
        for names, decay in self._groups:
            self._adam(names, gradients, lr, decay, skip)
        for name in self._unit:
            self.active[name].copy_(unit_rows(self.active[name]))

    def _adam(
        self,
        names: list[str],
        gradients: Mapping[str, Tensor],
        lr: float,
        decay: float,
        skip: Tensor | None,
    ) -> None:
        if not names:
            return
        adamw(
            params=[self.active[name] for name in names],
            grads=[gradients[name] for name in names],
            exp_avgs=[self._prefix(name, self.moments[name, "exp_avg"]) for name in names],
            exp_avg_sqs=[self._prefix(name, self.moments[name, "exp_avg_sq"]) for name in names],
            max_exp_avg_sqs=[],
            state_steps=[self.steps[name] for name in names],
            fused=True,
            found_inf=skip,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything to keep for an exact resume, by name: weights, moments, step count."""
        moments = {f"{name}.{moment}": value for (name, moment), value in self.moments.items()}
        return {**self.weights, **moments, "optimizer_step": next(iter(self.steps.values()))}

    def per_feature(self) -> set[str]:
        """Which of `tensors` have a row for each feature."""
        names = {name for name, spec in self.specs.items() if spec.per_feature}
        return names | {f"{name}.{moment}" for name in names for moment in _MOMENTS}

    def restored(self, n_enabled: int) -> None:
        """Go on, once what `tensors` gives was filled with what it gave before."""
        first, *others = self.steps.values()
        for step in others:
            step.copy_(first)
        self.enable(n_enabled)

    def _prefix(self, name: str, tensor: Tensor) -> Tensor:
        return tensor[: self.n_enabled] if self.specs[name].per_feature else tensor

    def _clipped(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients scaled so that the norm of all together, those of the whole group included, is
        at most `clip`."""
        total = self.group.norm(gradients, self.per_feature())
        scale = (self.clip / (total + 1e-6)).clamp(max=1.0)
        # not in place: two of them may be one tensor
        return {name: gradient * scale for name, gradient in gradients.items()}
