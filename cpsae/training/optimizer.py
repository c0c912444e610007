"""Adam over an enabled prefix of the features: torch's own fused update on views that grow.

Rows of disabled features are outside the views, so they get no gradient, no momentum, no decay;
the step count, and with it the bias correction, is the run's.
"""

import torch
from torch.optim.adamw import adamw

from cpsae.config.training import FitSettings
from cpsae.sae.initialization import Parameters

PER_FEATURE = ("w_enc", "b_enc", "w_dec")
NAMES = (*PER_FEATURE, "b_dec")
DECAYED = ("w_enc", "w_dec")
_MOMENTS = ("exp_avg", "exp_avg_sq")


class PrefixAdam:
    """Owns the weights of all n features and their moments; trains the first `n_enabled`.

    `active` holds the trainable views by name: w_enc (n_enabled, d), b_enc (n_enabled,),
    w_dec (n_enabled, d), b_dec (d,), float32.
    """

    def __init__(self, weights: Parameters, settings: FitSettings, n_enabled: int) -> None:
        self.weights: dict[str, torch.Tensor] = {name: getattr(weights, name) for name in NAMES}
        self.moments = {
            (name, moment): torch.zeros_like(weight)
            for name, weight in self.weights.items()
            for moment in _MOMENTS
        }
        self.active = {name: torch.nn.Parameter(self.weights[name]) for name in NAMES}
        self.steps = {name: self._new_step(weight) for name, weight in self.weights.items()}
        decay = settings.weight_decay if settings.optimizer == "adamw" else 0.0
        self._groups = [(DECAYED, decay), (tuple(n for n in NAMES if n not in DECAYED), 0.0)]
        self.enable(n_enabled)

    @staticmethod
    def _new_step(weight: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float32, device=weight.device)

    def enable(self, n_enabled: int) -> None:
        """Let the first `n_enabled` features take part, with the moments that they have."""
        self.n_enabled = n_enabled
        for name, parameter in self.active.items():
            parameter.grad = None
            parameter.data = self._prefix(name, self.weights[name])

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update from the gradients on `active`, which are then dropped.

        Without decay AdamW is Adam. The function, not the class: to make a torch.optim.Optimizer
        is to import torch's compiler, which takes seconds.
        """
        for names, decay in self._groups:
            adamw(
                params=[self.active[name] for name in names],
                grads=[_gradient(self.active[name]) for name in names],
                exp_avgs=[self._prefix(name, self.moments[name, "exp_avg"]) for name in names],
                exp_avg_sqs=[
                    self._prefix(name, self.moments[name, "exp_avg_sq"]) for name in names
                ],
                max_exp_avg_sqs=[],
                state_steps=[self.steps[name] for name in names],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr,
                weight_decay=decay,
                eps=1e-8,
                maximize=False,
            )
        for parameter in self.active.values():
            parameter.grad = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything to keep for an exact resume, by name: weights, moments, step count."""
        moments = {f"{name}.{moment}": value for (name, moment), value in self.moments.items()}
        return {**self.weights, **moments, "optimizer_step": self.steps["w_enc"]}

    def restore(self, tensors: dict[str, torch.Tensor], n_enabled: int) -> None:
        """Take back what `tensors` gave."""
        own = self.tensors()
        for name, value in own.items():
            value.copy_(tensors[name])
        for step in self.steps.values():
            step.copy_(tensors["optimizer_step"])
        self.enable(n_enabled)

    def _prefix(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[: self.n_enabled] if name in PER_FEATURE else tensor


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None, "backward leaves a gradient on every active weight"
    return parameter.grad
