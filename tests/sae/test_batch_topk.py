"""MinFire: in some batches every feature fires once, within the same budget."""

import math

import pytest
import torch

from cpsae.sae.batch_topk import BatchTopKKind
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training.settings import FitSettings

D, N, B = 6, 20, 16


def build(**settings):
    kind = load_kind("batchtopk")
    return kind(
        FitSettings(kind="batchtopk", **settings).method, RunPlan(D, N, steps=100, rows=1600)
    )


def problem():
    generator = torch.Generator().manual_seed(0)
    weights = {
        "w_enc": torch.randn(N, D, generator=generator),
        "b_enc": torch.randn(N, generator=generator) - 1,
        "w_dec": torch.randn(N, D, generator=generator),
        "b_dec": torch.zeros(D),
    }
    weights["b_enc"][7] = -100
    return weights, torch.randn(B, D, generator=generator)


def test_every_feature_that_can_fire_fires_on_its_largest_row():
    (weights, x), kind = problem(), build(k=3, min_fire_every=1)
    latents = kind.encode_batch(weights, x)
    f, a = latents.raw, latents.competed
    assert int((a > 0).sum()) == 3 * B
    assert torch.equal(a[a > 0], f[a > 0])
    forced = set()
    for feature in range(N):
        row = int(f[:, feature].argmax())
        if f[row, feature] > 0:
            forced.add((row, feature))
            assert a[row, feature] == f[row, feature]
    assert {feature for _, feature in forced} == set(range(N)) - {7}
    rest = sorted(
        (float(f[r, c]) for r in range(B) for c in range(N) if (r, c) not in forced), reverse=True
    )
    kept = sorted(
        (
            float(a[r, c])
            for r in range(B)
            for c in range(N)
            if a[r, c] > 0 and (r, c) not in forced
        ),
        reverse=True,
    )
    assert kept == rest[: 3 * B - len(forced)]


def test_each_feature_has_its_turn_until_nine_tenths_of_the_run():
    kind = build(k=3, min_fire_every=4)
    weights, x = problem()
    weights["b_enc"][12:16] = -1.9  # rare, and small where they fire: seldom kept by themselves
    f = kind.encode_batch(weights, x).raw
    rare = [i for i in range(12, 16) if f[:, i].any()]
    assert rare
    for updates in range(100):
        kind.updates = updates
        latents = kind.encode_batch(weights, x)
        assert (latents.kept is None) == (updates < 90)
        for feature in rare:
            if updates < 90 and feature % 4 == updates % 4:
                assert latents.competed[:, feature].any(), (updates, feature)
    assert kind.schedule_lengths()["min_fire_every"] == 90


def test_at_most_seven_tenths_of_a_batch_are_forced():
    kind = build(k=1, min_fire_every=1)  # keeps 16, of 20 features
    weights, x = problem()
    seen = set()
    for updates in (0, 1):
        kind.updates = updates
        latents = kind.encode_batch(weights, x)
        rows = latents.raw.argmax(0)
        forced = [i for i in range(updates, N, 2) if latents.raw[rows[i], i] > 0]
        assert len(forced) <= 0.7 * B
        assert all(latents.competed[rows[i], i] > 0 for i in forced)
        seen.update(forced)
    assert seen == set(range(N)) - {7}


def test_forced_latents_do_not_lower_the_threshold():
    (weights, x), rho = problem(), torch.zeros((), dtype=torch.float64)
    kind = build(k=3, min_fire_every=2)
    for step in (1, 2, 91, 92):  # the last two are not forced
        kind.updates = step - 1
        kind.after_step(step, rho, kind.encode_batch(weights, x).detached())
    plain = build(k=3)
    expected = float(plain.encode_batch(weights, x).kept.min())
    assert float(kind.tensors["threshold"]) == pytest.approx(expected, rel=1e-6)


def test_the_budget_falls_to_k():
    kind = build(k=2, k_start=4.0, k_until=0.5)
    assert [kind.budget(updates) for updates in (0, 50, 99)] == [8.0, 2.0, 2.0]
    assert kind.budget(25) == pytest.approx(4.0)  # half-way in its logarithm
    assert kind.schedule_lengths()["k_until"] == 50
    weights, x = problem()
    weights["b_enc"] += 10  # all are above 0
    for updates, kept in [(0, 8), (25, 4), (60, 2)]:
        kind.updates = updates
        assert int((kind.encode_batch(weights, x).competed > 0).sum()) == kept * B
    assert build(k=2).budget(0) == 2


def test_a_budget_above_what_there_is_keeps_all():
    (weights, x), kind = problem(), build(k=15, k_start=100.0)
    latents = kind.encode_batch(weights, x)
    assert torch.equal(latents.competed, latents.raw)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize(
    "scale", ["spread", "few above 0", "none above 0", "one feature takes all"]
)
def test_the_largest_are_found_however_they_are_spread(scale, forced):
    b, m, k = 40, 122, 3  # m is twice the distance of what is sampled
    kind = load_kind("batchtopk")(FitSettings(kind="batchtopk", k=k).method, RunPlan(5, m))
    assert isinstance(kind, BatchTopKKind)
    f = torch.rand(b, m, generator=torch.Generator().manual_seed(0)) - {"spread": 0.0}.get(
        scale, 0.99
    )
    f = f.relu() if scale != "none above 0" else torch.zeros(b, m)
    if scale == "one feature takes all":
        f[:, 61] = 5 + torch.arange(b) / b
    level = torch.full((m,), torch.inf)
    if forced:
        level[:9] = f[:, :9].amax(0).masked_fill(f[:, :9].amax(0) <= 0, torch.inf)
    order = [(float(v) if v < level[i % m] else math.inf) for i, v in enumerate(f.flatten())]
    expected = sorted(order, reverse=True)[: k * b]
    found = kind.largest(f, level if forced else None)
    assert len(found) == len(set(found.tolist())) == k * b
    assert sorted((order[i] for i in found), reverse=True) == expected
