import json

import numpy as np
import pytest
import reference
import torch

from cpsae.sae.competition import TemperatureSchedule, TemperatureSettings
from cpsae.sae.progressive import Enabling, EnablingSettings, Importance, growth

BELOW_3, BELOW_6 = np.nextafter(0.3, 0), np.nextafter(0.6, 0)


@pytest.mark.parametrize(
    ("rho", "n", "expected"),
    [
        (0.0, 2304, 5),
        (BELOW_3, 2304, 5),
        (0.3, 2304, 7),
        (BELOW_6, 2304, 7),
        (0.6, 2304, 10),
        (1.0, 2304, 10),
        # the middle branch: 2 at least, 7 at most, always 7 from n = 234
        (0.3, 16, 2),
        (0.3, 99, 2),
        (0.3, 101, 3),
        (0.3, 233, 6),
        (0.3, 234, 7),
        (0.59, 60, 3),
        # the upper branch: 4 at least, 10 at most, always 10 from n = 112
        (0.6, 4, 4),
        (0.6, 55, 4),
        (0.6, 56, 5),
        (0.6, 111, 9),
        (0.6, 112, 10),
        (1.0, 50, 7),
        (0.0, 4, 5),
    ],
)
def test_growth_at_every_boundary(rho, n, expected):
    assert growth(float(rho), n, "hybrid") == expected
    assert growth(float(rho), n, "fixed") == 5
    assert growth(float(rho), n, "none") == 0


def test_growth_equals_equation_4_everywhere():
    for n in range(1, 260):
        for rho in np.linspace(0, 1, 101):
            assert growth(float(rho), n) == reference.growth(rho, n)


@pytest.mark.parametrize(
    ("n", "fraction", "rule", "expected"),
    [
        (2304, 0.25, "hybrid", 576),
        (7, 0.25, "fixed", 1),
        (3, 0.25, "hybrid", 1),
        (1, 0.25, "hybrid", 1),
        (10, 1.0, "hybrid", 10),
        (2304, 0.25, "none", 2304),
    ],
)
def test_first_number_enabled(n, fraction, rule, expected):
    assert Enabling(n, rule=rule, initial_fraction=fraction).n_enabled == expected


def test_paper_numbers_of_steps():
    slow = Enabling(2304, rule="fixed")
    steps = 0
    while not slow.complete:
        steps += 1
        slow.advance(steps, 0.5)
    assert steps == 346
    assert slow.n_enabled == 2304
    assert slow.advance(steps + 1, 0.5) == 0


def test_growth_every_and_the_last_partial_growth():
    enabling = Enabling(20, rule="fixed", growth_every=3)
    added = [enabling.advance(step, 0.0) for step in range(1, 13)]
    assert added == [0, 0, 5, 0, 0, 5, 0, 0, 5, 0, 0, 0]
    assert Enabling(23, rule="fixed").advance(1, 0.0) == 5
    nearly = Enabling(8, rule="fixed")
    assert [nearly.advance(step, 0.0) for step in (1, 2, 3)] == [5, 1, 0]


def test_a_full_dictionary_does_not_read_rho():
    class Unread:
        def __float__(self):
            raise AssertionError("read")

    assert Enabling(8, rule="none").advance(1, Unread()) == 0  # type: ignore[arg-type]
    assert Enabling(8, rule="hybrid", growth_every=2).advance(1, Unread()) == 0  # type: ignore[arg-type]
    assert Enabling(80, rule="fixed").advance(1, Unread()) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize("utilisation", ["mean", "any"])
@pytest.mark.parametrize("n", [16, 150])
@pytest.mark.parametrize("rule", ["hybrid", "fixed", "none"])
@pytest.mark.parametrize("growth_every", [1, 4])
def test_a_run_in_order_equals_the_reference(utilisation, n, rule, growth_every):
    """Section 3, "Order within a run": n, T, v and rho of each step, with firing rates that drift
    through all three branches of Eq. 4."""
    generator = np.random.default_rng(n)
    settings = EnablingSettings(utilisation=utilisation, growth=rule, growth_every=growth_every)
    importance, enabling = (
        Importance.from_settings(settings, n),
        Enabling.from_settings(settings, n),
    )
    schedule = TemperatureSchedule(TemperatureSettings(), anneal_steps=40)
    temperature = torch.tensor(schedule.start(), dtype=torch.float64)
    expected = reference.Run(
        n, anneal_steps=40, utilisation=utilisation, rule=rule, growth_every=growth_every
    )
    for step in range(1, 61):
        assert enabling.n_enabled == expected.n_enabled
        drift = generator.standard_normal((6, enabling.n_enabled)) * 0.3 + step / 30 - 1
        f = np.maximum(drift, 0).astype(np.float32)
        rho = importance.update(importance.indicator(torch.from_numpy(f)))
        schedule.update(temperature, step, rho)
        enabling.advance(step, rho)
        expected.after_update(f)
        assert rho.dtype == torch.float64
        assert rho.item() == pytest.approx(expected.rho, abs=1e-12)
        assert temperature.item() == pytest.approx(expected.temperature, abs=1e-12)
        np.testing.assert_allclose(importance.v_N.numpy(), expected.v, atol=1e-12)
        assert not importance.v_N[enabling.n_enabled :].any()


def test_indicator_is_strictly_above_the_threshold():
    f = torch.tensor([[0.0, 0.01, 0.0101, 3.0], [0.0, 0.0, 0.0, 3.0]])
    assert Importance(4).indicator(f).tolist() == [0, 0, 0.5, 1]
    assert Importance(4, utilisation="any").indicator(f).tolist() == [0, 0, 1, 1]


def test_resuming_is_exact():
    straight, broken = Importance(9), Importance(9)
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        f = torch.rand(5, 9, generator=generator).sub(0.5).relu()
        straight.update(straight.indicator(f))
        broken.update(broken.indicator(f))
        saved, broken = broken.state(), Importance(9)
        broken.v_N.copy_(saved["importance"])
    assert torch.equal(straight.v_N, broken.v_N)

    enabling = Enabling(40)
    enabling.advance(1, 0.9)
    restored = Enabling(40)
    restored.load_state(json.loads(json.dumps(enabling.state())))
    assert restored.n_enabled == enabling.n_enabled == 15
    with pytest.raises(ValueError, match="41"):
        restored.load_state({"n_enabled": 41})


def test_linear_growth_never_takes_back_what_is_enabled():
    """A run that is stretched goes on with a longer schedule than it was begun with."""
    enabling = Enabling(100, rule="linear", growth_every=7, growth_steps=200)
    enabling.load_state({"n_enabled": 98})
    assert [enabling.advance(step, 0.0) for step in (105, 182, 196, 203)] == [0, 0, 0, 2]
