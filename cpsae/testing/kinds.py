"""What every kind of autoencoder promises, as tests. For a kind of your own:

    from cpsae.testing.kinds import KindTests

    class TestMyKind(KindTests):
        name = "mykind"

pytest then runs all of it on the kind that is found under that name.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch

from cpsae.sae.autoencoder import load
from cpsae.sae.initialization import initialize
from cpsae.sae.kind import Kind, RunPlan, prefix
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.testing.forms import latents_of
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.settings import FitSettings
from cpsae.training.step import Trainable

D, N, M, B = 12, 48, 40, 64
STEPS = 12


class KindTests:
    """Inherit, and set `name`; `settings` are the kind's own, where defaults do not fit n = 48."""

    name: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(params=["cpu", "cuda"])
    def device(self, request: pytest.FixtureRequest) -> str:
        """cpu, and cuda where there is a GPU."""
        if request.param == "cuda" and not torch.cuda.is_available():
            pytest.skip("no GPU")
        return str(request.param)

    def fit_settings(self, **common: Any) -> FitSettings:
        """Of a short run of this kind."""
        return FitSettings(kind=self.name, **self.settings, **common)

    def trainable(self, device: str = "cpu", length: int = 1, **common: Any) -> Trainable:
        """Before its first update; length: of its run, in times of STEPS."""
        settings = self.fit_settings(**common)
        kind_class = load_kind(self.name)
        steps = length * STEPS
        plan = RunPlan(D, N, steps=steps, rows=steps * B, schedule_scale=0.01 * length)
        kind = kind_class(settings.method, plan)
        b_dec = torch.linspace(-0.1, 0.1, D)
        weights = initialize(kind_class.weights, D, N, "uniform", b_dec, seed=1)
        placed = {name: weight.to(device) for name, weight in weights.items()}
        return Trainable(placed, kind, Normalizer("none"), settings)

    def trained(self, device: str = "cpu", steps: int = STEPS, **common: Any) -> Trainable:
        """After some updates."""
        state = self.trainable(device, **common)
        for step in range(1, steps + 1):
            state.update(rows(step).to(device), 1e-2)
        return state

    def test_it_is_found_by_its_name_and_as_a_preset(self) -> None:
        kind_class = load_kind(self.name)
        assert kind_class.name == self.name
        resolved = resolve_fit({f"preset {self.name}": preset(self.name)}).settings
        assert resolved.kind == self.name
        assert isinstance(resolved.method, kind_class.Settings)
        assert resolve_fit({"recipe": resolved.model_dump()}).settings == resolved

    def test_it_has_an_encoder_and_a_decoder(self) -> None:
        specs = load_kind(self.name).weights
        assert {"w_enc", "b_enc", "w_dec", "b_dec"} <= specs.keys()
        assert (specs["w_dec"].shape, specs["b_dec"].shape) == ("nd", "d")

    @pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
    def test_latents_of_any_leading_shape(self, device: str, shape: tuple[int, ...]) -> None:
        sae = self.trained(device).autoencoder({})
        x = torch.randn(*shape, D, generator=torch.Generator().manual_seed(3)).to(device)
        latents = sae.latents(x)
        assert latents.raw.shape == latents.competed.shape == (*shape, sae.n_enabled)
        assert (latents.raw >= 0).all()
        assert latents.competed.isfinite().all()
        assert sae.encode(x).shape == (*shape, N)
        assert sae(x).shape == x.shape

    def test_rows_do_not_depend_on_their_neighbours(self, device: str) -> None:
        sae, x = self.trained(device).autoencoder({}), rows(50).to(device)
        single = torch.stack([sae.encode(row) for row in x])
        torch.testing.assert_close(single, sae.encode(x), rtol=1e-4, atol=1e-5)

    def test_its_loss_is_a_number_with_gradients_for_all_that_is_trained(self, device: str) -> None:
        state = self.trained(device)
        step = state.rule(state.objective, state.optimizer.active, rows(99).to(device))
        assert step.loss.total.isfinite()
        assert "mse" in step.loss.parts
        assert all(part.ndim == 0 and part.isfinite() for part in step.loss.parts.values())
        for name, gradient in step.gradients.items():
            assert gradient.shape == state.optimizer.active[name].shape, name
            assert gradient.isfinite().all(), name
            assert gradient.any(), f"{name} is never trained"

    def test_squared_error_falls(self, device: str) -> None:
        state = self.trainable(device, lr=1e-2)
        figures = [state.update(rows(step % 4).to(device), 1e-2) for step in range(1, 81)]
        errors = [figure.parts["mse"] for figure in figures if figure is not None]
        assert sum(errors[-8:]) < sum(errors[:8])

    def test_disabled_features_stay_as_they_were(self, device: str) -> None:
        state = self.trainable(device, growth="fixed", growth_every=4)
        before = {name: weight.clone() for name, weight in state.optimizer.weights.items()}
        held = {name: tensor.clone() for name, tensor in state.kind.tensors.items()}
        for step in range(1, STEPS + 1):
            enabled = state.enabling.n_enabled
            state.update(rows(step).to(device), 1e-2)
            for name, spec in state.kind.weights.items():
                if spec.per_feature:
                    assert torch.equal(
                        state.optimizer.weights[name][enabled:], before[name][enabled:]
                    )
            for name, spec in state.kind.state.items():
                if spec.per_feature:
                    assert torch.equal(state.kind.tensors[name][enabled:], held[name][enabled:])
        assert state.enabling.n_enabled == N // 4 + 5 * (STEPS // 4)

    def test_features_can_begin_anew(self, device: str) -> None:
        state = self.trained(device)
        weights, x = state.optimizer.weights, rows(50).to(device)
        before = {name: weight.clone() for name, weight in weights.items()}
        features = torch.tensor([1, 30], device=device)
        others = [i for i in range(N) if i not in (1, 30)]
        directions = torch.eye(D, device=device)[:2]
        state.kind.begin(weights, features, directions, torch.full((2,), 0.1, device=device))
        assert torch.equal(weights["w_enc"][features], directions)
        assert torch.equal(weights["w_dec"][features], directions)
        for name, spec in state.kind.weights.items():
            rest = weights[name][others] if spec.per_feature else weights[name]
            kept = before[name][others] if spec.per_feature else before[name]
            assert torch.equal(rest, kept), name
        fires = state.kind.encode(weights, x).raw[:, features] > 0
        assert (fires == (x @ directions.T > 0.1)).double().mean() > 0.95

    def test_restored_from_a_checkpoint_it_goes_on_with_the_same_bits(self, device: str) -> None:
        straight, resumed = self.trained(device), self.trainable(device)
        tensors, state = self.trained(device, steps=STEPS // 2).state()
        saved = safetensors.torch.save({k: t.cpu().contiguous() for k, t in tensors.items()})
        resumed.restore(STEPS // 2, safetensors.torch.load(saved), json.loads(json.dumps(state)))
        for step in range(STEPS // 2 + 1, STEPS + 1):
            resumed.update(rows(step).to(device), 1e-2)
        expected, found = straight.state(), resumed.state()
        assert found[1] == expected[1]
        for name, tensor in expected[0].items():
            assert torch.equal(found[0][name], tensor), name

    def test_what_hangs_on_the_length_of_a_run_is_said(self, device: str) -> None:
        """Else a run that is given more steps would not end as one of that length does."""
        short, long = (self.trainable(device, length=length) for length in (1, 50))
        if short.kind.schedule_lengths() != long.kind.schedule_lengths():
            return
        for state in (short, long):  # some that are dead: kinds may count how long
            state.optimizer.weights["b_enc"][:6] = -50
        for step in range(1, STEPS + 1):
            for state in (short, long):
                state.update(rows(step).to(device), 1e-2)
        for name, tensor in short.state()[0].items():
            assert torch.equal(long.state()[0][name], tensor), name

    def test_saved_and_loaded_it_is_the_same(self, device: str, tmp_path: Path) -> None:
        sae, x = self.trained(device).autoencoder({"layer": 3}), rows(50).to(device)
        sae.save(tmp_path / "a")
        again = load(tmp_path / "a", device)
        assert torch.equal(again.encode(x), sae.encode(x))
        assert torch.equal(again(x), sae(x))
        again.save(tmp_path / "b")
        for name in ("sae.safetensors", "sae.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_constants_go_through_json(self) -> None:
        kind = self.trained().kind
        constants = json.loads(json.dumps(kind.constants()))
        fixed = type(kind).from_constants(constants, D, N)
        assert fixed.constants() == constants
        reserved = {"kind", "d", "n_latents", "n_enabled", "normalization", "hook"}
        assert not reserved & constants.keys()

    def test_packing_is_undone_by_unpacking(self) -> None:
        state = self.trained()
        weights = state.optimizer.weights
        again = state.kind.unpack(state.kind.pack(weights))
        assert again.keys() == weights.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(again[name], weight, rtol=1e-6, atol=1e-7)

    def test_centred_weights_see_x_as_others_see_x_less_b_dec(self) -> None:
        state = self.trained()
        kind: Kind = state.kind
        w = prefix(kind.weights, state.optimizer.weights, M)
        w["b_dec"] = torch.linspace(-0.2, 0.3, D)
        found = kind.encode(kind.centred(w), rows(50))
        expected = kind.encode(w, rows(50) - w["b_dec"])
        torch.testing.assert_close(found.raw, expected.raw, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("scale", [1.0, 37.5])
    def test_its_form_says_what_it_computes(self, scale: float) -> None:
        """And longer rows have latents as many times larger: `cpsae export` relies on it."""
        state = self.trained()
        w = prefix(state.kind.weights, state.optimizer.weights, M)
        form = state.kind.form(w)
        if form is None:
            return
        expected = state.kind.encode(w, rows(50)).competed * scale
        found = latents_of(form, w, rows(50) * scale, scale)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale)


def rows(seed: int) -> torch.Tensor:
    """(64, 12) rows with structure: sparse mixtures of twenty directions."""
    directions = torch.randn(20, D, generator=torch.Generator().manual_seed(1000))
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(B, 20, generator=generator) < 0.2
    strengths = torch.rand(B, 20, generator=generator) + 0.5
    noise = 0.05 * torch.randn(B, D, generator=generator)
    mixed: torch.Tensor = (strengths * present) @ directions / D**0.5
    return mixed + noise
