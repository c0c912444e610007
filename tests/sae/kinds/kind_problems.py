"""A small kind with weights and rows, and its loss and gradients by autograd, for tests that work
them out by hand."""

import numpy as np
import torch

from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training.rules import Objective, autograd
from cpsae.training.settings import FitSettings

D, N, B = 6, 14, 32


def build(name, steps=100, **settings):
    """A kind in the middle of no run yet: `updates` is 0."""
    chosen = FitSettings(kind=name, **settings)
    plan = RunPlan(D, N, steps=steps, rows=steps * B, schedule_scale=0.01)
    return load_kind(name)(chosen.method, plan)


def problem(kind, seed=0):
    """Weights (float32 leaves) and rows."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.4 * torch.randn(spec.sizes(D, N), generator=generator)
        for name, spec in kind.weights.items()
    }
    weights["w_dec"] = torch.nn.functional.normalize(weights["w_dec"], dim=1)
    return weights, torch.randn(B, D, generator=generator)


def stepped(kind, weights, x):
    """Loss, parts, latents and gradients, as training computes them."""
    leaves = {name: torch.nn.Parameter(weight.clone()) for name, weight in weights.items()}
    return autograd(Objective(kind), leaves, x)


def in_numpy(weights, x):
    """float64."""
    return {name: w.double().numpy() for name, w in weights.items()}, x.double().numpy()


def assert_gradients(step, expected):
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            step.gradients[name].numpy(), gradient, rtol=2e-4, atol=2e-5, err_msg=name
        )
