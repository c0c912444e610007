"""The auxiliary loss on dead latents against its definition, in float64 numpy and plain loops."""

import numpy as np
import pytest
import torch

from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training.settings import FitSettings

D, N, M, B = 8, 20, 16, 10


def build(name="topk", rows=10_000, **settings):
    chosen = FitSettings(kind=name, k=2, **settings)
    kind = load_kind(name)(chosen.method, RunPlan(D, N, rows=rows))
    kind.updates = rows  # late enough that latents may be dead
    return kind


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    w = {
        "w_enc": torch.randn(M, D, generator=generator),
        "b_enc": torch.randn(M, generator=generator) - 1,
        "w_dec": torch.nn.functional.normalize(torch.randn(M, D, generator=generator), dim=1),
        "b_dec": torch.randn(D, generator=generator) * 0.1,
    }
    w = {name: weight.requires_grad_() for name, weight in w.items()}
    return w, torch.randn(B, D, generator=generator)


def loss_of(kind, w, x):
    latents = kind.encode_batch(w, x)
    return latents, kind.loss(w, x, latents, kind.decode(w, latents.competed))


def by_hand(w, x, latents, dead, aux_k):
    """||e - e_hat||^2 averaged over rows; e_hat of the aux_k largest dead pre-activations."""
    w = {name: weight.detach().double().numpy() for name, weight in w.items()}
    x, a = x.double().numpy(), latents.competed.detach().double().numpy()
    total = 0.0
    for row, kept in zip(x, a, strict=True):
        residual = row - (kept @ w["w_dec"] + w["b_dec"])
        pre = w["w_enc"] @ row + w["b_enc"]
        chosen = sorted(dead, key=lambda i: -pre[i])[:aux_k]
        guess = sum((pre[i] * w["w_dec"][i] for i in chosen), np.zeros(D))
        total += ((residual - guess) ** 2).sum()
    return total / len(x)


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
@pytest.mark.parametrize("aux_k", [None, 1, 3, 100])
@pytest.mark.parametrize("dead", [[5], [0, 3, 7, 9, 12], list(range(M))])
def test_equals_its_definition(name, aux_k, dead):
    kind, (w, x) = build(name, aux_k=aux_k, dead_after=100), problem()
    kind.tensors["rows_since_fired"][dead] = 100
    kind.tensors["rows_since_fired"][M:] = 10**6  # not enabled: they do not count
    latents, loss = loss_of(kind, w, x)
    expected = by_hand(w, x, latents, dead, D // 2 if aux_k is None else aux_k)
    assert loss.parts["aux"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.total.item() == pytest.approx(loss.parts["mse"].item() + expected / 32, rel=1e-5)


def test_its_gradient_reaches_dead_latents_alone_and_not_through_the_residual():
    kind, (w, x) = build(aux_coefficient=1.0, dead_after=100), problem()
    _, plain = loss_of(kind, w, x)
    without = torch.autograd.grad(plain.total, list(w.values()), allow_unused=True)
    kind.tensors["rows_since_fired"][3] = 100
    _, revived = loss_of(kind, w, x)
    given = torch.autograd.grad(revived.total, list(w.values()))
    for name, before, after in zip(w, without, given, strict=True):
        others = torch.arange(len(before)) != 3 if name != "b_dec" else slice(None)
        torch.testing.assert_close(after[others], before[others], msg=name)
        if name != "b_dec":
            assert not torch.allclose(after[3], before[3]), name


@pytest.mark.parametrize("off", [{"aux_k": 0}, {"aux_coefficient": 0.0}])
def test_it_can_be_turned_off(off):
    kind, (w, x) = build(dead_after=1, **off), problem()
    kind.tensors["rows_since_fired"][:] = 10
    _, loss = loss_of(kind, w, x)
    assert loss.parts["aux"] == 0
    assert loss.total == loss.parts["mse"]


def test_it_is_zero_while_none_is_dead():
    kind, (w, x) = build(dead_after=100), problem()
    kind.tensors["rows_since_fired"][:] = 99
    assert loss_of(kind, w, x)[1].parts["aux"] == 0


@pytest.mark.parametrize(
    ("rows", "asked", "expected"),
    [(10_000, None, 1000), (10**9, None, 10**7), (10**9, 5, 5), (3, None, 1)],
)
def test_when_a_latent_is_dead(rows, asked, expected):
    assert build(rows=rows, dead_after=asked).dead_after == expected


def test_rows_since_a_feature_fired_are_counted():
    kind = build()
    for step, fires in enumerate([[1, 2], [2], []], start=1):
        w, x = problem(step)
        competed = torch.zeros(B, M)
        competed[step % B, fires] = 1.0
        latents = kind.encode_batch(w, x)._replace(competed=competed, entries=None).detached()
        kind.after_step(step, torch.tensor(0.0), latents)
    since = kind.tensors["rows_since_fired"].tolist()
    expected = [30] * M + [0] * (N - M)
    expected[1], expected[2] = 20, 10
    assert since == expected
