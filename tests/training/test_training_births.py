"""When features begin anew, seen on whole updates: late ones, dead ones, and none but those."""

import numpy as np
import pytest
import torch

from cpsae.errors import SettingsError
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import kind_names, load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.testing.kinds import rows
from cpsae.training.settings import FitSettings
from cpsae.training.start import first_weights
from cpsae.training.step import Trainable

D, N, B, STEPS = 12, 48, 64, 40


def begun(kind="relu", **values):
    own = {"k": 4} if "topk" in kind else {}
    settings = FitSettings(kind=kind, growth_every=5, **own, **values)
    kind_class = load_kind(kind)
    plan = RunPlan(D, N, steps=STEPS, rows=STEPS * B)
    made = kind_class(settings.method, plan)
    return Trainable(first_weights(made, settings, {}), made, Normalizer("none"), settings)


def run(state, steps, lr=1e-3):
    for step in range(state.step + 1, state.step + steps + 1):
        state.update(rows(step), lr, measure=False)


@pytest.mark.parametrize("kind", kind_names())
def test_late_features_begin_along_the_residual(kind):
    state = begun(kind, growth="linear", new_features="residual")
    before = {name: w.clone() for name, w in state.optimizer.weights.items()}
    run(state, 4)
    assert state.enabling.n_enabled == 12
    x = rows(5)
    state.update(x, 1e-3, measure=False)
    new = slice(12, state.enabling.n_enabled)
    w = state.optimizer.weights
    directions = w["w_dec"][new]
    assert len(directions) == 7  # 12 + 36 * 5 / 24
    assert torch.equal(directions, w["w_enc"][new])
    torch.testing.assert_close(directions @ directions.T, torch.eye(7), atol=1e-5, rtol=0)
    residual = x - state.objective.reconstruct(state.optimizer.prefix(12), x)
    along = torch.nn.functional.normalize(residual, dim=1) @ directions[0]
    assert along.max().item() == pytest.approx(1, abs=1e-4), "the first one is along a residual"
    for name, spec in state.kind.weights.items():
        if spec.per_feature:
            later = slice(new.stop, None)
            assert torch.equal(w[name][later], before[name][later]), name


def test_with_initial_beginnings_late_features_keep_their_first_weights():
    state = begun(growth="linear")
    before = state.optimizer.weights["w_dec"].clone()
    run(state, 5)
    assert state.enabling.n_enabled == 19
    assert torch.equal(state.optimizer.weights["w_dec"][12:], before[12:])


@pytest.mark.parametrize("kind", ["relu", "batchtopk", "jumprelu", "gated"])
def test_dead_features_begin_anew(kind):
    state = begun(kind, growth="none", revive_every=10)
    dead = torch.tensor([3, 40])
    state.optimizer.weights["b_enc"][dead] = -100
    run(state, 9)
    assert not state.kind.encode(state.optimizer.weights, rows(9)).competed[:, dead].any()
    others = torch.tensor([i for i in range(N) if i not in dead.tolist()])
    assert (state.births.rows_since_fired_N[dead] == 9 * B).all()
    assert (state.births.rows_since_fired_N == 0).sum() > N // 2
    moments = state.optimizer.moments["w_enc", "exp_avg_sq"].clone()
    run(state, 1)
    assert (state.optimizer.weights["b_enc"][dead] > -10).all()
    for (name, which), moment in state.optimizer.moments.items():
        if not state.kind.weights[name].per_feature:
            continue
        if which == "exp_avg":
            assert not moment[dead].any(), name
        else:
            assert torch.equal(moment[3], moment[40]), name
    assert state.optimizer.moments["w_enc", "exp_avg_sq"][others].any()
    assert moments[others].any()
    assert not state.births.rows_since_fired_N[dead].any()
    latents = state.kind.encode_batch(state.optimizer.weights, rows(10))
    found = latents.raw if kind == "batchtopk" else latents.competed  # before it is held to k
    assert ((found[:, dead] > 0).sum(0) == 1).all(), "each fires on 1/64 of the batch's rows"


def test_none_is_revived_at_the_end():
    state = begun(growth="none", revive_every=10, revive_until=0.5)
    run(state, 20)
    state.optimizer.weights["b_enc"][3] = -100
    run(state, 20)
    assert state.optimizer.weights["b_enc"][3] < -90
    assert state.births.schedule_lengths() == {"revive_every": 10, "revive_until": 20}


def test_a_resumed_run_has_the_same_births():
    wanted = {"growth": "linear", "new_features": "residual", "revive_every": 8}
    straight, first, second = (begun(**wanted) for _ in range(3))
    run(straight, 25)
    run(first, 13)
    tensors, state = first.state()
    second.restore(13, {name: t.clone() for name, t in tensors.items()}, state)
    run(second, 12)
    for name, tensor in straight.state()[0].items():
        assert torch.equal(second.state()[0][name], tensor), name
    assert second.state()[1] == straight.state()[1]


def test_features_that_took_part_are_counted():
    state = begun(growth="linear")
    seen = 0
    for step in range(1, 31):
        seen += state.enabling.n_enabled
        state.update(rows(step), 1e-3, measure=False)
    assert state.feature_products == 5 * seen
    assert state.flops(B) == 5 * 2 * B * D * seen


def test_a_run_that_diverged_goes_on_to_where_that_is_told():
    state = begun(growth="linear", new_features="residual", revive_every=5)
    x = rows(1)
    x[0] = torch.nan
    for _ in range(5):
        result = state.update(x, 1e-3)
    assert state.enabling.n_enabled > 12
    assert result is not None and not np.isfinite(result.loss)
    assert state.broken_at() == 1


def test_the_reconstructions_that_births_ask_for_are_counted():
    state = begun(growth="linear", new_features="residual")
    seen = 0
    for step in range(1, 31):
        enabled = state.enabling.n_enabled
        state.update(rows(step), 1e-3, measure=False)
        seen += (7 if state.enabling.n_enabled > enabled else 5) * enabled
    assert state.feature_products == seen > 5 * 30 * 12


def test_a_checkpoint_from_before_there_were_births_is_taken():
    first, second = begun(), begun()
    run(first, 3)
    tensors, state = first.state()
    assert "rows_since_fired" not in tensors
    second.restore(3, tensors, state)
    assert second.step == 3


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"growth": "none", "new_features": "residual"}, "no feature is enabled late"),
        ({"frozen": "decoder", "revive_every": 10}, "would change the decoder, which is frozen"),
    ],
)
def test_births_that_cannot_be_are_refused(wanted, text):
    with pytest.raises(SettingsError, match=text):
        FitSettings(kind="relu", **wanted)
