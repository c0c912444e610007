import json
import math

import numpy as np
import pytest
import torch
from reference import alpha, equation_6, t_base

from cpsae.config import TemperatureSettings
from cpsae.sae.competition import TemperatureSchedule, compete


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
    assert torch.isfinite(f.grad).all()
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
    assert TemperatureSchedule(TemperatureSettings()).value.item() == 0.3
    assert TemperatureSchedule(TemperatureSettings(anneal_steps=0)).value.item() == 0.1
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


@pytest.mark.parametrize("anneal_steps", [0, 614, 2000])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_series_over_3000_steps(anneal_steps, as_tensor):
    rhos = np.clip(np.random.default_rng(2).normal(0.5, 0.3, 3000), 0, 1)
    schedule = TemperatureSchedule(TemperatureSettings(), anneal_steps)
    expected = equation_6(0.0, 0, anneal_steps)
    for step, rho in enumerate(rhos, start=1):
        schedule.update(step, torch.tensor(rho) if as_tensor else float(rho))
        expected = 0.99 * expected + 0.01 * equation_6(rho, step, anneal_steps)
        assert schedule.value.item() == pytest.approx(expected, rel=1e-12)
        assert 0.05 <= schedule.value.item() <= 0.3 + 1e-12


def test_equation_6_reaches_237_thousandths():
    schedule = TemperatureSchedule(TemperatureSettings(momentum=0.0), anneal_steps=0)
    schedule.update(1, 1.0)
    assert schedule.value.item() == pytest.approx(0.2372, abs=1e-4)
    schedule.update(2, 0.0)
    assert schedule.value.item() == pytest.approx(0.1)


def test_resuming_through_json_is_exact():
    straight, broken = (TemperatureSchedule(TemperatureSettings()) for _ in range(2))
    for step in range(1, 60):
        rho = torch.tensor(math.sin(step) ** 2, dtype=torch.float64)
        straight.update(step, rho)
        broken.update(step, rho)
        text = json.dumps(broken.state())
        broken = TemperatureSchedule(TemperatureSettings())
        broken.load_state(json.loads(text))
    assert straight.value.item() == broken.value.item()


def test_constant_stays():
    schedule = TemperatureSchedule.constant(0.123456789)
    assert schedule.value.item() == 0.123456789
    schedule.update(1, 0.9)
    assert schedule.value.item() == pytest.approx(0.123456789, rel=1e-15)
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="not above 0"):
            TemperatureSchedule.constant(wrong)
