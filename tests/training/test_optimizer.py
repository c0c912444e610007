"""PrefixAdam against torch's optimizer on plain tensors, and against AdamW in float64 numpy."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from cpsae.sae.kind import STANDARD, Spec
from cpsae.training.optimizer import PrefixAdam
from cpsae.training.settings import FitSettings

N, D = 12, 5
PER_FEATURE = ("w_enc", "b_enc", "w_dec")
NAMES = (*PER_FEATURE, "b_dec")
SPECS = {
    "w_enc": Spec("nd", decay=True),
    "b_enc": Spec("n"),
    "w_dec": Spec("nd", decay=True),
    "b_dec": Spec("d"),
}
SHAPES = {"w_enc": (N, D), "b_enc": (N,), "w_dec": (N, D), "b_dec": (D,)}


def some(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def made(settings, n_enabled):
    return PrefixAdam(SPECS, some(0), settings, n_enabled)


def of_prefix(optimizer, gradients):
    return {name: gradients[name][: len(p)].clone() for name, p in optimizer.active.items()}


def lr_of(step):
    return 1e-2 * min(1, step / 7)


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_all_enabled_is_torchs_own(name):
    settings = FitSettings(optimizer=name, weight_decay=0.1)
    optimizer = made(settings, N)
    plain = {key: torch.nn.Parameter(value) for key, value in some(0).items()}
    matrices = {"params": [plain["w_enc"], plain["w_dec"]], "weight_decay": 0.1}
    biases = {"params": [plain["b_enc"], plain["b_dec"]], "weight_decay": 0.0}
    if name == "adamw":
        expected = torch.optim.AdamW([matrices, biases])
    else:
        expected = torch.optim.Adam(plain.values())  # type: ignore[assignment]
    for step in range(1, 21):
        gradients = some(step)
        for key, parameter in plain.items():
            parameter.grad = gradients[key]
        for group in expected.param_groups:
            group["lr"] = lr_of(step)
        optimizer.step(of_prefix(optimizer, gradients), lr_of(step))
        expected.step()
        for key in NAMES:
            torch.testing.assert_close(
                optimizer.weights[key], plain[key].detach(), atol=1e-6, rtol=1e-6
            )


class NumpyAdamW:
    """METHOD 2 and reading 2: decay on the matrices, masked rows, the run's step in the bias
    correction."""

    def __init__(self, weights, decay):
        self.weights = {name: value.numpy().astype(np.float64) for name, value in weights.items()}
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.decay = decay
        self.run_step = 0

    def step(self, gradients, n_enabled, lr):
        self.run_step += 1
        for name, weight in self.weights.items():
            rows = slice(0, n_enabled) if name in PER_FEATURE else slice(None)
            g = gradients[name].numpy().astype(np.float64)[rows]
            self.first[name][rows] = 0.9 * self.first[name][rows] + 0.1 * g
            self.second[name][rows] = 0.999 * self.second[name][rows] + 0.001 * g * g
            if name in ("w_enc", "w_dec"):
                weight[rows] *= 1 - lr * self.decay
            mean = self.first[name][rows] / (1 - 0.9**self.run_step)
            spread = np.sqrt(self.second[name][rows] / (1 - 0.999**self.run_step))
            weight[rows] -= lr * mean / (spread + 1e-8)


def test_growing_prefix_is_masked_adamw():
    optimizer = made(FitSettings(weight_decay=0.1), 3)
    expected = NumpyAdamW(some(0), 0.1)
    n_enabled = 3
    for step in range(1, 31):
        gradients = some(step)
        optimizer.step(of_prefix(optimizer, gradients), lr_of(step))
        expected.step(gradients, n_enabled, lr_of(step))
        for name in NAMES:
            np.testing.assert_allclose(
                optimizer.weights[name].numpy(), expected.weights[name], atol=2e-6
            )
        for name in PER_FEATURE:
            assert torch.equal(optimizer.weights[name][n_enabled:], some(0)[name][n_enabled:])
            for moment in ("exp_avg", "exp_avg_sq"):
                assert not optimizer.moments[name, moment][n_enabled:].any()
                assert optimizer.moments[name, moment][:n_enabled].all()
        if step % 4 == 0 and n_enabled < N:
            n_enabled = min(N, n_enabled + 2)
            optimizer.enable(n_enabled)
        assert float(optimizer.tensors()["optimizer_step"]) == step


def test_restored_goes_on_with_the_same_bits():
    straight = made(FitSettings(), 4)
    saved = None
    for step in range(1, 9):
        straight.step(of_prefix(straight, some(step)), lr_of(step))
        if step == 3:
            straight.enable(7)
            saved = {name: tensor.clone() for name, tensor in straight.tensors().items()}
    resumed = PrefixAdam(SPECS, some(99), FitSettings(), 4)
    for name, tensor in resumed.tensors().items():
        tensor.copy_(saved[name])
    resumed.restored(7)
    for step in range(4, 9):
        resumed.step(of_prefix(resumed, some(step)), lr_of(step))
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def test_no_compiler_is_imported():
    """Seconds at the start of every fit."""
    program = (
        "import sys; from cpsae.training.settings import FitSettings\n"
        "from cpsae.sae.initialization import initialize\n"
        "from cpsae.sae.kind import STANDARD\n"
        "from cpsae.training.optimizer import PrefixAdam\n"
        "optimizer = PrefixAdam(STANDARD, initialize(STANDARD, 3, 4), FitSettings(), 4)\n"
        "optimizer.step({k: p.detach() * 0 for k, p in optimizer.active.items()}, 0.1)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_rows_of_unit_norm_stay_so_and_clipping_bounds_the_whole_gradient():
    specs = {**SPECS, "w_dec": Spec("nd", decay=True, unit_rows=True)}
    weights = some(0)
    weights["w_dec"] = torch.nn.functional.normalize(weights["w_dec"], dim=1)
    optimizer = PrefixAdam(specs, weights, FitSettings(clip=0.5), N)
    gradients = {name: gradient.clone() for name, gradient in some(1).items()}
    w = optimizer.weights["w_dec"].double().clone()
    optimizer.step(gradients, 0.1)
    used = {name: optimizer.moments[name, "exp_avg"].double() * 10 for name in NAMES}
    assert (used["w_dec"] * w).sum(1).abs().max() < 1e-6
    total = sum(float((gradient**2).sum()) for gradient in used.values()) ** 0.5
    assert total == pytest.approx(0.5, rel=1e-5)
    norms = optimizer.weights["w_dec"].double().norm(dim=1)
    assert (norms - 1).abs().max() < 1e-6


def test_forgotten_features_have_the_second_moment_of_an_average_one():
    weights = {name: torch.randn(spec.sizes(4, 6)) for name, spec in STANDARD.items()}
    optimizer = PrefixAdam(STANDARD, weights, FitSettings(), 5)
    generator = torch.Generator().manual_seed(0)
    for moment in optimizer.moments.values():
        moment.copy_(torch.rand(moment.shape, generator=generator))
    before = {key: moment.clone() for key, moment in optimizer.moments.items()}
    optimizer.forget(torch.tensor([1, 5]))
    for (name, which), moment in optimizer.moments.items():
        expected = before[name, which].clone()
        if name != "b_dec":
            typical = before[name, which][:5].mean(0)
            expected[[1, 5]] = typical if which == "exp_avg_sq" else torch.zeros_like(typical)
        torch.testing.assert_close(moment, expected, msg=name)


def test_features_are_enabled_while_a_graph_of_before_is_held() -> None:
    """As one that a cycle keeps until Python looks for such."""
    weights = {"w_enc": torch.randn(6, 3), "b_enc": torch.zeros(6)}
    specs = {"w_enc": Spec("nd"), "b_enc": Spec("n")}
    optimizer = PrefixAdam(specs, weights, FitSettings(), n_enabled=2)
    x = torch.randn(5, 3)

    def loss() -> torch.Tensor:
        active = optimizer.active
        return torch.addmm(active["b_enc"], x, active["w_enc"].T).square().sum()

    held = loss()
    optimizer.enable(4)
    loss().backward()
    assert optimizer.active["b_enc"].grad.shape == (4,)
    held.backward()
