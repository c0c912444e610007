"""The step rule that is the reference for all others: gradients by name, and nothing shared."""

import torch

from cpsae.sae.group import Alone
from cpsae.sae.kind import STANDARD, Kind, Latents, RunPlan, Spec
from cpsae.sae.losses import Loss
from cpsae.training.optimizer import PrefixAdam
from cpsae.training.rules import Objective, autograd
from cpsae.training.settings import FitSettings


class Sum(Kind):
    """Two weights whose gradients are one number each, and one that is never used."""

    name = "sum"
    weights = {**STANDARD, "first": Spec("n"), "second": Spec("n"), "idle": Spec("d")}

    def encode(self, w, x):
        f = (x @ w["w_enc"].T + w["b_enc"]).relu()
        return Latents(raw=f, competed=f)

    def loss(self, w, x_BD, latents, x_hat_BD):  # noqa: ARG002
        mse = self.mse(x_BD, x_hat_BD)
        return Loss(mse + (w["first"] + w["second"]).sum(), {"mse": mse})


def leaves():
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(spec.sizes(3, 5), generator=generator).requires_grad_()
        for name, spec in Sum.weights.items()
    }


def test_gradients_are_those_of_backward_and_may_be_worked_in():
    w, x = leaves(), torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    objective = Objective(Sum(None, RunPlan(3, 5)))
    step = autograd(objective, w, x)
    _, loss = objective(w, x)
    loss.total.backward()
    for name, gradient in step.gradients.items():
        assert gradient.is_contiguous() and not gradient.requires_grad
        expected = torch.zeros_like(w[name]) if w[name].grad is None else w[name].grad
        torch.testing.assert_close(gradient, expected)
    assert not step.loss.total.requires_grad
    assert not step.latents.raw.requires_grad
    assert all(weight.requires_grad for weight in w.values())


def test_clipping_leaves_equal_gradients_equal():
    w, x = leaves(), torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    weights = {name: weight.detach().clone() for name, weight in w.items()}
    optimizer = PrefixAdam(Sum.weights, weights, FitSettings(clip=0.1), 5)
    step = autograd(Objective(Sum(None, RunPlan(3, 5))), optimizer.active, x)
    optimizer.step(Alone().mean(step.gradients), 1e-3)
    first, second = (optimizer.moments[name, "exp_avg"] for name in ("first", "second"))
    assert torch.equal(first, second)
    total = sum(
        float(m.square().sum()) for (_, n), m in optimizer.moments.items() if n == "exp_avg"
    )
    assert abs(10 * total**0.5 - 0.1) < 1e-5


def test_alone_changes_nothing():
    group, tensors = Alone(), {"a": torch.arange(3.0)}
    assert (group.size, group.rank) == (1, 0)
    assert group.mean(tensors)["a"] is tensors["a"]
    assert group.maximum(tensors["a"]) is tensors["a"]
