import numpy as np
import pytest
import reference
import torch

from cpsae.sae.competition import compete
from cpsae.sae.kind import Latents, RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.sae.losses import reconstruction, sparsity
from cpsae.training.settings import FitSettings

D, N, B = 5, 7, 6


def problem(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "x": generator.standard_normal((B, D)),
        "w_e": generator.standard_normal((N, D)),
        "b_e": generator.standard_normal(N) * 0.1,
        "w_d": generator.standard_normal((D, N)),
        "b_d": generator.standard_normal(D),
    }


def loss(x, w_e, b_e, w_d, b_d, over, l1_on, dtype=torch.float64):
    x, w_e, b_e, w_d, b_d = (torch.as_tensor(v).to(dtype) for v in (x, w_e, b_e, w_d, b_d))
    f = (x @ w_e.T + b_e).relu()
    a = compete(f, 0.2, over)
    method = FitSettings(l1=0.04, l1_on=l1_on).method
    kind = load_kind("competitive")(method, RunPlan(D, N))
    return kind.loss({}, x, Latents(f, a), a @ w_d.T + b_d)


@pytest.mark.parametrize("over", ["enabled", "active"])
@pytest.mark.parametrize("l1_on", ["competed", "raw"])
def test_loss_and_gradients_equal_the_reference(over, l1_on):
    given = problem()
    expected = reference.loss(**given, temperature=0.2, l1=0.04, over=over, l1_on=l1_on)
    single = loss(**given, over=over, l1_on=l1_on, dtype=torch.float32).total
    assert single.item() == pytest.approx(expected, rel=1e-5)

    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in given.items()}
    parts = loss(**tensors, over=over, l1_on=l1_on)
    assert parts.total.item() == pytest.approx(expected, rel=1e-12)
    penalty = parts.parts["l1" if l1_on == "competed" else "penalty"]
    assert parts.total.item() == pytest.approx(
        (parts.parts["mse"] + 0.04 * penalty).item(), rel=1e-12
    )
    parts.total.backward()
    for name in ("w_e", "b_e", "w_d", "b_d"):
        differences = finite_differences(given, name, over, l1_on)
        np.testing.assert_allclose(tensors[name].grad.numpy(), differences, atol=2e-5)


def finite_differences(given, name, over, l1_on, step=1e-6):
    found = np.zeros_like(given[name])
    for index in np.ndindex(found.shape):
        sides = []
        for sign in (1, -1):
            moved = given[name].copy()
            moved[index] += sign * step
            changed = {**given, name: moved}
            sides.append(
                reference.loss(**changed, temperature=0.2, l1=0.04, over=over, l1_on=l1_on)
            )
        found[index] = (sides[0] - sides[1]) / (2 * step)
    return found


def test_mean_reduction_divides_by_d():
    x, x_hat = torch.randn(4, 8), torch.randn(4, 8)
    whole, mean = (reconstruction(x, x_hat, how) for how in ("sum", "mean"))
    torch.testing.assert_close(mean, whole / 8)
    torch.testing.assert_close(whole, (x - x_hat).square().sum(1).mean())


def test_l1_is_summed_over_latents_and_averaged_over_rows():
    a = torch.rand(4, 3)
    torch.testing.assert_close(sparsity(a), a.sum(1).mean())


def test_half_precision_is_summed_in_float32():
    x_hat = torch.full((4, 4096), 1.0, dtype=torch.bfloat16)
    for value in (reconstruction(torch.zeros(4, 4096), x_hat), sparsity(x_hat)):
        assert value.item() == 4096
        assert value.dtype == torch.float32
