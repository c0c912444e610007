import math

import numpy as np
import pytest
import torch
from reference import alpha, equation_6, t_base

from cpsae.sae.competition import TemperatureSchedule, TemperatureSettings, compete


def activations(rows=16, n=40, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return np.maximum(generator.standard_normal((rows, n)) * scale, 0).astype(np.float32)


@pytest.mark.parametrize("over", ["enabled", "active"])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("scale", [0.04, 1.0, 200.0])
def test_equals_equation_5(over, temperature, scale):
    f = activations(scale=scale)
    expected = np.stack([alpha(row.astype(np.float64), temperature, over) for row in f])
    for t in (temperature, torch.tensor(temperature, dtype=torch.float64)):
        found = compete(torch.from_numpy(f), t, over)
        assert found.dtype == torch.float32
        # Rounding f / T alone moves a share by 2^-24 * f / T, so raw vectors cannot do better.
        np.testing.assert_allclose(
            found.numpy(), expected, rtol=1e-5 * max(1, scale / temperature / 50), atol=1e-7 * scale
        )


def test_active_leaves_rows_without_features_at_zero_with_finite_gradients():
    f = torch.zeros(3, 8)
    f[1, 2] = 5.0
    f.requires_grad_(True)
    a = compete(f, 0.1, "active")
    assert torch.equal(a.detach(), f.detach())  # one active feature takes the whole share
    a.sum().backward()
    assert torch.isfinite(f.grad).all()  # type: ignore[arg-type]
    assert f.grad[0].abs().sum() == 0


def test_enabled_counts_zeros_and_active_does_not():
    f = torch.tensor([[0.0, 1.0]])
    share = 1 / (1 + math.exp(-1.0))
    assert compete(f, 1.0, "enabled")[0, 1].item() == pytest.approx(share)
    assert compete(f, 1.0, "active")[0, 1].item() == 1.0


def test_large_values_do_not_overflow():
    f = torch.tensor([[2e4, 1.9e4, 0.0]])
    for over in ("enabled", "active"):
        assert compete(f, 0.05, over).tolist() == [[2e4, 0.0, 0.0]]


def test_half_precision_is_computed_in_float32():
    f = torch.from_numpy(activations()).bfloat16()
    assert torch.equal(compete(f, 0.1), compete(f.float(), 0.1).bfloat16())


def test_any_leading_shape():
    f = torch.from_numpy(activations(24))
    assert torch.equal(compete(f.view(2, 3, 4, 40), 0.2).view(24, 40), compete(f, 0.2))
    torch.testing.assert_close(compete(f[0], 0.2), compete(f, 0.2)[0])


@pytest.mark.parametrize("over", ["enabled", "active"])
def test_gradcheck(over):
    generator = torch.Generator().manual_seed(1)
    pre = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    pre = (pre + 0.05 * pre.sign()).requires_grad_(True)  # away from the kink of the ReLU
    assert torch.autograd.gradcheck(lambda z: compete(z.relu(), 0.3, over), pre)


def test_first_temperature():
    assert TemperatureSchedule(TemperatureSettings()).start() == 0.3
    assert TemperatureSchedule(TemperatureSettings(anneal_steps=0)).start() == 0.1
    assert TemperatureSchedule(TemperatureSettings(), anneal_steps=0).start() == 0.1
    assert TemperatureSchedule(TemperatureSettings(anneal_from=5.0)).start() == 0.3
    low = TemperatureSettings(base=0.01, anneal_steps=0)
    assert TemperatureSchedule(low).start() == 0.05


def test_base_falls_linearly():
    schedule = TemperatureSchedule(TemperatureSettings())
    for step in (0, 1, 500, 1999, 2000, 4882):
        assert schedule.base(step) == pytest.approx(t_base(step, 2000), rel=1e-12)
    assert schedule.base(1000) == pytest.approx(0.2)
    assert schedule.base(2000) == schedule.base(10**6) == 0.1


def number(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("anneal_steps", [0, 614, 2000])
def test_series_over_3000_steps(anneal_steps):
    rhos = np.clip(np.random.default_rng(2).normal(0.5, 0.3, 3000), 0, 1)
    schedule = TemperatureSchedule(TemperatureSettings(), anneal_steps)
    temperature = number(schedule.start())
    expected = equation_6(0.0, 0, anneal_steps)
    for step, rho in enumerate(rhos, start=1):
        schedule.update(temperature, step, number(rho))
        expected = 0.99 * expected + 0.01 * equation_6(rho, step, anneal_steps)
        assert temperature.item() == pytest.approx(expected, rel=1e-12)
        assert 0.05 <= temperature.item() <= 0.3 + 1e-12


def test_equation_6_reaches_237_thousandths():
    schedule = TemperatureSchedule(TemperatureSettings(momentum=0.0), anneal_steps=0)
    temperature = number(0.1)
    schedule.update(temperature, 1, number(1.0))
    assert temperature.item() == pytest.approx(0.2372, abs=1e-4)
    schedule.update(temperature, 2, number(0.0))
    assert temperature.item() == pytest.approx(0.1)
