"""Whole updates against the method in float64 numpy, its gradients written out by hand."""

import numpy as np
import pytest
import reference
import torch

from cpsae.sae.initialization import initialize
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.training.settings import FitSettings
from cpsae.training.step import Trainable

NAMES = ("w_enc", "b_enc", "w_dec", "b_dec")
N, D, B, ANNEAL = 160, 12, 32, 12
DEAD_AFTER = 96
"""Rows: three batches."""


def batch(step):
    rng = np.random.default_rng(step)
    directions = np.random.default_rng(99).standard_normal((30, D))
    strengths = rng.exponential(1.0, (B, 30)) * (rng.random((B, 30)) < 0.2)
    return (strengths @ directions + 0.05 * rng.standard_normal((B, D)) + 0.3).astype(np.float32)


def lr_of(step):
    return 2e-3 * min(1, step / 10)


def begun(settings, bfloat16=False, device="cpu"):
    b_dec = torch.linspace(-0.1, 0.1, D)
    kind_class = load_kind(settings.kind)
    plan = RunPlan(
        D,
        N,
        rows=DEAD_AFTER * 10,
        schedule_scale=ANNEAL / 2000,
        mse_reduction=settings.mse_reduction,
    )
    weights = initialize(kind_class.weights, D, N, settings.init, b_dec, settings.seed)
    kind = kind_class(settings.method, plan)
    weights = {name: weight.to(device) for name, weight in weights.items()}
    return Trainable(weights, kind, Normalizer("layer"), settings, bfloat16=bfloat16)


class NumpyRun:
    """The run of METHOD sections 1 to 4 in float64; w_d has one row a feature. Of the kinds that
    count latents: theirs, with the loss on dead ones."""

    def __init__(self, settings, weights):
        self.s, self.own = settings, settings.method
        self.w = {name: weights[name].cpu().numpy().astype(np.float64) for name in NAMES}
        self.m = {name: np.zeros_like(value) for name, value in self.w.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.w.items()}
        self.run = reference.Run(N, ANNEAL, settings.utilisation, settings.growth)
        self.since = np.zeros(N)
        self.step = 0

    def update(self, raw, lr):
        s, run = self.s, self.run
        self.step += 1
        m, temperature = run.n_enabled, run.temperature
        x = raw.astype(np.float64)
        x = x - x.mean(1, keepdims=True)
        x /= np.sqrt((x * x).sum(1, keepdims=True))
        w_e, b_e, w_d, b_d = (self.w[n][:m] if n != "b_dec" else self.w[n] for n in NAMES)
        seen = x - b_d if s.center else x
        pre = seen @ w_e.T + b_e
        f = np.maximum(pre, 0)
        share = self.shares(f, temperature)
        a = share * f
        error = a @ w_d + b_d - x
        scale = 1 / B if s.mse_reduction == "sum" else 1 / (B * D)
        mse = (error**2).sum() * scale
        on_a = getattr(self.own, "l1_on", "competed") == "competed"
        weight = getattr(self.own, "l1", 0.0)
        penalty = (a if on_a else f).sum() / B

        d_hat = 2 * scale * error
        d_a = d_hat @ w_d.T + (weight / B * (a > 0) if on_a else 0)
        d_f = self.through_competition(d_a, f, share, temperature)
        d_f = d_f + (0 if on_a else weight / B)
        aux, d_pre, d_w_d = self.auxiliary(pre, w_d, -error, m, scale)
        d_pre = d_f * (f > 0) + d_pre
        g = {
            "w_enc": d_pre.T @ seen,
            "b_enc": d_pre.sum(0),
            "w_dec": a.T @ d_hat + d_w_d,
            "b_dec": d_hat.sum(0) - (d_pre.sum(0) @ w_e if s.center else 0),
        }
        g["w_dec"] -= (g["w_dec"] * w_d).sum(1, keepdims=True) * w_d
        if s.clip:
            norm = np.sqrt(sum((value**2).sum() for value in g.values()))
            g = {name: value * min(1, s.clip / norm) for name, value in g.items()}
        self.adamw(g, m, lr)
        before = run.n_enabled
        run.after_update(f)
        self.since[:m] = np.where((a > 0).any(0), 0, self.since[:m] + B)
        counts = "topk" in s.kind
        return {
            "loss": mse + (aux / 32 if counts else weight * penalty),
            "mse": mse,
            "l1": a.sum() / B,
            **({} if on_a else {"penalty": penalty}),
            **({"aux": aux} if counts else {}),
            "l0": (a != 0).sum() / B,
            "utilisation": run.rho,
            "n_enabled": before,
            "growth": run.n_enabled - before,
            "temperature": temperature if s.kind == "competitive" else None,
        }

    def shares(self, f, temperature):
        """a = shares * f."""
        if self.s.kind == "relu":
            return np.ones_like(f)
        if self.s.kind == "topk":
            return np.stack([row >= np.sort(row)[-self.own.k] for row in f]).astype(float)
        if self.s.kind == "batchtopk":
            return (f >= np.sort(f.ravel())[-self.own.k * B]).astype(float)
        counted = f > 0 if self.own.competition.over == "active" else np.ones_like(f, bool)
        e = np.exp(f / temperature) * counted
        return e / np.maximum(e.sum(1, keepdims=True), 1e-300)

    def through_competition(self, d_a, f, share, temperature):
        """d loss / d f for a = share * f."""
        if self.s.kind != "competitive":
            return d_a * share
        d_share = d_a * f
        inner = (d_share * share).sum(1, keepdims=True)
        return d_a * share + share * (d_share - inner) / temperature

    def auxiliary(self, pre, w_d, residual, m, scale):
        """The loss on dead latents, with its gradients by pre-activation and decoder row."""
        dead = self.since[:m] >= DEAD_AFTER
        if "topk" not in self.s.kind or not dead.any():
            return 0.0, 0.0, 0.0
        masked = np.where(dead, pre, -np.inf)
        used = masked >= np.sort(masked, axis=1)[:, [-min(D // 2, dead.sum())]]
        z = np.where(used, pre, 0)
        error = z @ w_d - residual
        d_hat = 2 * scale * error / 32
        return (error**2).sum() * scale, d_hat @ w_d.T * used, z.T @ d_hat

    def adamw(self, g, m, lr):
        for name, gradient in g.items():
            rows = slice(0, m) if name != "b_dec" else slice(None)
            self.m[name][rows] = 0.9 * self.m[name][rows] + 0.1 * gradient
            self.v[name][rows] = 0.999 * self.v[name][rows] + 0.001 * gradient**2
            if name in ("w_enc", "w_dec"):
                self.w[name][rows] *= 1 - lr * self.s.weight_decay
            mean = self.m[name][rows] / (1 - 0.9**self.step)
            spread = np.sqrt(self.v[name][rows] / (1 - 0.999**self.step))
            self.w[name][rows] -= lr * mean / (spread + 1e-8)
        rows = self.w["w_dec"][:m]
        rows /= np.sqrt((rows**2).sum(1, keepdims=True))


VARIANTS = {
    "paper": {},
    "baseline": {"kind": "relu", "growth": "none"},
    "l1_on=raw": {"l1_on": "raw"},
    "mse_reduction=mean": {"mse_reduction": "mean", "l1": 0.001},
    "center": {"center": True},
    "clip": {"clip": 0.05},
    "over=active": {"competition": {"over": "active"}},
    "fixed, any": {"growth": "fixed", "utilisation": "any"},
    "uniform": {"init": "uniform"},
    "topk": {"kind": "topk", "k": 3, "growth": "none"},
    "batchtopk": {"kind": "batchtopk", "k": 3, "mse_reduction": "mean"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_thirty_steps_equal_the_method(variant, device):
    settings = FitSettings(**VARIANTS[variant])  # type: ignore[arg-type]
    state = begun(settings, device=device)
    expected = NumpyRun(settings, state.optimizer.weights)
    revived = 0.0
    for step in range(1, 31):
        result = state.update(torch.from_numpy(batch(step)), lr_of(step)).as_json()
        revived += result.get("aux", 0.0)
        figures = expected.update(batch(step), lr_of(step))
        assert result.keys() == figures.keys()
        for name, value in figures.items():
            got = result[name]
            if value is None or isinstance(value, int):
                assert got == value, (step, name)
            else:
                tolerance = 0.5 if name == "l0" else 1e-5 * abs(value) + 1e-6
                assert got == pytest.approx(value, abs=tolerance), (step, name)
        norms = state.optimizer.weights["w_dec"].double().norm(dim=1)
        assert (norms - 1).abs().max() < 1e-6
    for name, value in expected.w.items():
        np.testing.assert_allclose(state.optimizer.weights[name].cpu().numpy(), value, atol=2e-4)
    if settings.growth != "none":
        assert state.enabling.n_enabled > 150
    if "topk" in variant:
        assert revived > 0, "no latent was ever dead: the loss on them was not seen"


def test_by_hand_gradients_are_those_of_equation_2():
    """The reference's own backward pass against differences of reference.loss."""
    settings = FitSettings()
    run = NumpyRun(settings, begun(settings).optimizer.weights)
    got = {}
    run.adamw = lambda gradients, _m, _lr: got.update(gradients)  # type: ignore[method-assign]
    x = batch(1).astype(np.float64)
    run.update(batch(1), 0.0)
    x -= x.mean(1, keepdims=True)
    x /= np.sqrt((x * x).sum(1, keepdims=True))
    t_0 = reference.equation_6(0.0, 0, ANNEAL)

    def loss_at(name, index, change):
        w = {key: value.copy() for key, value in run.w.items()}
        w[name][index] += change
        enabled = [w[key][:40] for key in ("w_enc", "b_enc")]
        return reference.loss(x, *enabled, w["w_dec"][:40].T, w["b_dec"], t_0, 0.04)

    for name, index in [("w_enc", (3, 4)), ("b_enc", (7,)), ("b_dec", (2,)), ("w_enc", (39, 0))]:
        slope = (loss_at(name, index, 1e-5) - loss_at(name, index, -1e-5)) / 2e-5
        assert got[name][index] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_disabled_features_stay_as_they_were():
    state = begun(FitSettings())
    before = {name: value.clone() for name, value in state.optimizer.weights.items()}
    state.update(torch.from_numpy(batch(1)), 1e-2)
    for name in ("w_enc", "b_enc", "w_dec"):
        assert torch.equal(state.optimizer.weights[name][40:], before[name][40:])
        assert not torch.equal(state.optimizer.weights[name][:40], before[name][:40])
    assert not state.importance.v_N[40:].any()


def test_centring_is_folded_into_the_saved_bias():
    state = begun(FitSettings(center=True, kind="relu", growth="none"))
    for step in range(1, 11):
        state.update(torch.from_numpy(batch(step)), 1e-2)
    w = {name: value.numpy().astype(np.float64) for name, value in state.optimizer.weights.items()}
    x = batch(50).astype(np.float64)
    x -= x.mean(1, keepdims=True)
    x /= np.sqrt((x * x).sum(1, keepdims=True))
    expected = np.maximum((x - w["b_dec"]) @ w["w_enc"].T + w["b_enc"], 0)
    latents = state.autoencoder({}).encode(torch.from_numpy(batch(50)))
    np.testing.assert_allclose(latents.numpy(), expected, atol=1e-5)


def test_measuring_changes_nothing():
    measured, silent = begun(FitSettings()), begun(FitSettings())
    for step in range(1, 6):
        measured.update(torch.from_numpy(batch(step)), 1e-3)
        assert silent.update(torch.from_numpy(batch(step)), 1e-3, measure=False) is None
    for name in NAMES:
        assert torch.equal(measured.optimizer.weights[name], silent.optimizer.weights[name])


def test_bfloat16_products_stay_near():
    settings = FitSettings()
    exact, rounded = begun(settings), begun(settings, bfloat16=True)
    for step in range(1, 11):
        rows = torch.from_numpy(batch(step))
        a, b = exact.update(rows, 1e-3), rounded.update(rows, 1e-3)
    assert b.loss == pytest.approx(a.loss, rel=0.02)
    assert b.loss != a.loss
    assert all(value.dtype == torch.float32 for value in rounded.optimizer.weights.values())


def test_finite_sees_a_single_bad_weight():
    state = begun(FitSettings())
    assert state.finite()
    state.optimizer.weights["w_enc"][150, 3] = float("nan")
    assert not state.finite()


def test_from_a_loss_that_is_no_number_on_nothing_changes(device) -> None:
    """As the same updates up to the one before it leave it, however many follow."""
    batches = [torch.from_numpy(batch(step)).to(device) for step in range(1, 7)]
    batches[3][5, 2] = torch.nan
    broken, whole = (begun(FitSettings(growth="none"), device=device) for _ in range(2))
    for number, rows in enumerate(batches):
        broken.update(rows, 1e-2, measure=False)
        if number < 3:
            whole.update(rows, 1e-2, measure=False)
    assert (broken.broken_at(), whole.broken_at()) == (4, 0)
    for name, tensor in whole.optimizer.tensors().items():
        # rows of unit norm are scaled to it each time
        torch.testing.assert_close(broken.optimizer.tensors()[name], tensor, rtol=1e-6, atol=0)
