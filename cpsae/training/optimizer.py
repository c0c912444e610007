"""Adam over an enabled prefix of the features: torch's own optimizer on views that grow.

Rows of disabled features are outside the views, so they get no gradient, no momentum, no decay;
the step count, and with it the bias correction, is the run's.
"""

import torch

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
        self._optimizer = self._build(settings)
        self.steps = {name: self._new_step(weight) for name, weight in self.weights.items()}
        self.enable(n_enabled)

    def _build(self, settings: FitSettings) -> torch.optim.Optimizer:
        decayed = [self.active[name] for name in DECAYED]
        plain = [self.active[name] for name in NAMES if name not in DECAYED]
        if settings.optimizer == "adam":
            return torch.optim.Adam([*decayed, *plain], lr=settings.lr, fused=True)
        return torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.lr,
            fused=True,
        )

    @staticmethod
    def _new_step(weight: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float32, device=weight.device)

    def enable(self, n_enabled: int) -> None:
        """Let the first `n_enabled` features take part, with the moments that they have."""
        self.n_enabled = n_enabled
        for name, parameter in self.active.items():
            parameter.grad = None
            parameter.data = self._prefix(name, self.weights[name])
            self._optimizer.state[parameter] = {
                "step": self.steps[name],
                **{moment: self._prefix(name, self.moments[name, moment]) for moment in _MOMENTS},
            }

    def step(self, lr: float) -> None:
        """One update from the gradients on `active`, which are then dropped."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

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
