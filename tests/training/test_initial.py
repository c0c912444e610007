"""What a run begins with that goes on from another one: the same function of raw rows."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cpsae.errors import RunError, SettingsError
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import SCALED, Normalizer
from cpsae.training.facts import find_facts
from cpsae.training.initial import (
    Initial,
    begun_from,
    refuse_unfit_initial,
    start_from,
)
from cpsae.training.member import new_trainable
from cpsae.training.settings import FitSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from small_runs import CONSTANTS, D, M, N, make_sae, relative, rows  # noqa: E402

CPU = torch.device("cpu")
PAIRS = [
    ("unit", "unit"),
    ("none", "unit"),
    ("sqrt-d", "none"),
    ("layer", "layer"),
    ("layer", "layer-variance"),
    ("layer-variance", "layer"),
]


@pytest.fixture(scope="module")
def store(make_store):
    return make_store(rows("unit", 400).numpy())


def settings_of(kind, normalize, **changes):
    own = {"k": 5} if "k" in load_kind(kind).Settings.model_fields else {}
    asked = {"kind": kind, "normalize": normalize, "n_latents": N, "batch_size": 32, **own}
    return FitSettings(**{**asked, "steps": 10, "device": "cpu", **changes})


def begun(store, sae, settings):
    """A run before its first update."""
    initial = Initial(Path("run"), "ab", sae)
    refuse_unfit_initial(initial, settings, store.d)
    facts = begun_from(initial, settings, find_facts(store.training, settings, CPU))
    start = start_from(initial, settings, facts)
    return new_trainable(settings, facts, store.d, CPU, start)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("before", "after"), PAIRS)
@pytest.mark.parametrize("kind", CONSTANTS)
def test_the_function_of_raw_rows_stays(store, kind, before, after, center) -> None:
    sae = make_sae(kind, before)
    trainable = begun(store, sae, settings_of(kind, after, center=center))
    ours, x = trainable.autoencoder({}), rows(before)
    assert ours.normalizer.name == after
    with torch.no_grad():
        assert relative(ours(x), sae(x)) < 1e-5
        scale = ours.encode(x).max() / sae.encode(x).max()
        assert relative(ours.encode(x), sae.encode(x) * scale) < 1e-5
    if before == after:  # its own scale, not that of this store
        assert ours.normalizer == sae.normalizer
    if before == after and not center:
        saved = dict(sae.named_parameters())
        assert all(torch.equal(saved[name], w) for name, w in ours.named_parameters())


def test_another_scale_is_that_of_the_store(store) -> None:
    settings = settings_of("relu", "unit")
    trainable = begun(store, make_sae("relu", "none"), settings)
    assert trainable.normalizer == find_facts(store.training, settings, CPU).normalizer
    assert trainable.normalizer.scale > 10


@pytest.mark.parametrize("growth", ["hybrid", "linear", "fixed"])
def test_the_enabled_prefix_is_carried_on(store, growth) -> None:
    trainable = begun(store, make_sae("relu", "unit"), settings_of("relu", "unit", growth=growth))
    assert (trainable.enabling.n_enabled, trainable.optimizer.n_enabled) == (M, M)
    trainable.update(rows("unit", 32), 1e-3)
    assert trainable.enabling.n_enabled > M if growth != "linear" else True
    for _ in range(9):
        trainable.update(rows("unit", 32), 1e-3)
    assert trainable.enabling.n_enabled == N


def test_linear_growth_begins_there(store) -> None:
    """Also after it was restored: from the facts, as a checkpoint does not hold it."""
    settings = settings_of("relu", "unit", growth="linear", steps=20, growth_until=0.9)
    sae = make_sae("relu", "unit")
    trainable = begun(store, sae, settings)
    for _ in range(6):
        trainable.update(rows("unit", 32), 1e-3)
    initial = Initial(Path("run"), "ab", sae)
    facts = begun_from(initial, settings, find_facts(store.training, settings, CPU))
    again = new_trainable(settings, type(facts).from_json(facts.as_json()), store.d, CPU)
    tensors, state = trainable.state()
    again.restore(6, tensors, state)
    for each in (trainable, again):
        each.update(rows("unit", 32), 1e-3)
        assert each.enabling.n_enabled == M + (7 * (N - M)) // 18


def test_what_inference_knows_of_running_tensors_goes_on(store) -> None:
    sae = make_sae("batchtopk", "none")
    trainable = begun(store, sae, settings_of("batchtopk", "unit"))
    scale = trainable.normalizer.scale
    assert float(trainable.kind.tensors["threshold"]) == pytest.approx(0.6 / scale)


def with_rows_of(sae, norm):
    sae.W_dec.data *= norm
    return sae


@pytest.mark.parametrize(
    ("kind", "normalize", "changes", "text"),
    [
        ("topk", "unit", {"kind": "relu", "k": None}, "its kind is topk, not relu .--preset topk"),
        ("relu", "unit", {"n_latents": 41}, "it has 40 latents, not 41 .--n-latents 40"),
        ("relu", "unit", {"n_latents": None}, "it has 40 latents, not 24"),
        ("relu", "layer", {"normalize": "unit"}, "by layer, not unit, .*--set normalize=layer"),
        ("relu", "none", {"normalize": "layer"}, "normalised by none, not layer"),
        ("relu", "unit", {"growth": "none"}, "31 of its 40 features are enabled, and with growth"),
    ],
)
def test_what_does_not_fit(store, kind, normalize, changes, text) -> None:
    asked = {k: v for k, v in {"normalize": normalize, **changes}.items() if k != "k"}
    settings = (
        settings_of(kind, **asked)
        if "kind" not in asked
        else settings_of(asked.pop("kind"), **asked)
    )
    with pytest.raises(SettingsError, match=f"--init run: does not fit: .*{text}"):
        begun(store, make_sae(kind, normalize), settings)


def test_all_that_does_not_fit_is_listed(store) -> None:
    sae = with_rows_of(make_sae("relu", "layer"), 2)
    settings = settings_of("topk", "unit", n_latents=50)
    with pytest.raises(SettingsError) as refused:
        refuse_unfit_initial(Initial(Path("run"), "ab", sae), settings, 30)
    said = str(refused.value)
    assert said.count("; ") == 4
    for text in (
        "rows of d = 24, the store's have d = 30",
        "norms from 2 to 2, and training keeps",
    ):
        assert text in said
    assert store.d == D


def test_a_kind_without_a_form_keeps_its_normalisation(store, monkeypatch) -> None:
    sae = make_sae("relu", "unit")
    monkeypatch.setattr(type(sae.kind), "form", lambda _self, _w: None)
    begun(store, sae, settings_of("relu", "unit"))
    with pytest.raises(SettingsError, match="does not say what is in the units of rows"):
        begun(store, sae, settings_of("relu", "sqrt-d"))


def test_one_that_is_gone() -> None:
    with pytest.raises(RunError, match="is not there any more"):
        Initial(Path("run"), "ab", None).found()


def test_facts_without_a_beginning_elsewhere_are_as_before(store) -> None:
    facts = find_facts(store.training, settings_of("relu", "unit"), CPU)
    assert "n_enabled" not in facts.as_json()
    assert replace(facts, n_enabled=3).as_json()["n_enabled"] == 3
    assert Normalizer("unit", 2.0).name in SCALED
