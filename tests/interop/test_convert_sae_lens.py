"""SAELens' folders as runs: the function in float64 numpy, what its loader gets wrong, refusals."""

import json

import numpy as np
import pytest
import torch
from published_folders import ARCHITECTURES, METADATA, D, N, rows, sae_lens_plainly, write_sae_lens
from safetensors.torch import load_file, save_file
from small_runs import make_run, relative

import cpsae
from cpsae.errors import SourceError


def converted(tmp_path, source, **asked):
    cpsae.convert(source, tmp_path / "run", **asked)
    return cpsae.load(tmp_path / "run")


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_function_stays(tmp_path, architecture, unit) -> None:
    """With decoder rows of norm 1 and of any."""
    source = write_sae_lens(tmp_path / "sae", architecture, unit)
    sae = converted(tmp_path, source)
    assert relative(sae(rows()), sae_lens_plainly(source, rows())) < 1e-5
    assert (sae.d, sae.n_latents, sae.n_enabled, sae.normalizer.name) == (D, N, N, "none")
    norms = sae.W_dec.norm(dim=1)
    assert torch.allclose(norms, torch.ones(N), atol=1e-5) is (unit or architecture != "topk")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layer_norm_is_ours_times_a_number(tmp_path, architecture) -> None:
    """Its deviation is over d - 1, and 1e-5 longer; ours is not."""
    source = write_sae_lens(tmp_path / "sae", architecture, normalize_activations="layer_norm")
    said = cpsae.convert(source, tmp_path / "run").notes
    assert said[0].startswith("SAELens' layer_norm adds 1e-5 to each row's standard deviation")
    sae = cpsae.load(tmp_path / "run")
    assert sae.normalizer.name == "layer"
    assert relative(sae(rows(size=20)), sae_lens_plainly(source, rows(size=20))) < 1e-5


def test_b_dec_is_subtracted_unless_it_is_said_not_to_be(tmp_path) -> None:
    """Where the key is missing, too."""
    for number, value in enumerate((None, True, False)):
        source = write_sae_lens(tmp_path / f"{number}", "jumprelu", apply_b_dec_to_input=value)
        cpsae.convert(source, tmp_path / f"run{number}")
        found = cpsae.load(tmp_path / f"run{number}")(rows())
        assert relative(found, sae_lens_plainly(source, rows())) < 1e-5
    weights = [load_file(tmp_path / f"run{n}/sae.safetensors")["b_enc"] for n in range(3)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_top_k_by_decoder_norm(tmp_path) -> None:
    """Latents are then chosen, and given, as those of decoder rows of norm 1."""
    source = write_sae_lens(tmp_path / "sae", "topk", False, rescale_acts_by_decoder_norm=True)
    sae = converted(tmp_path, source)
    assert relative(sae(rows()), sae_lens_plainly(source, rows())) < 1e-5
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(N), atol=1e-6)


def test_one_scale_for_all_rows_is_never_forgotten(tmp_path) -> None:
    """SAELens loads such a folder as if rows had not been scaled."""
    scaled = {"normalize_activations": "expected_average_only_in"}
    source = write_sae_lens(tmp_path / "sae", "jumprelu", **scaled)
    with pytest.raises(SourceError, match=r"one number, which the folder does not hold.*--scaling"):
        cpsae.convert(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    expected = sae_lens_plainly(source, rows(), factor=0.37)
    assert relative(converted(tmp_path, source, scaling_factor=0.37)(rows()), expected) < 1e-5
    (source / "activation_scaler.json").write_text('{"scaling_factor": 0.37}')
    cpsae.convert(source, tmp_path / "again")
    again = cpsae.load(tmp_path / "again")
    assert relative(again(rows()), expected) < 1e-5
    assert again.normalizer.name == "sqrt-d" and again.normalizer.scale == pytest.approx(1 / 0.37)


def test_metadata_nested_and_of_before_6(tmp_path) -> None:
    """Nested ones count also where no version is named, for which SAELens drops them."""
    unversioned = {k: v for k, v in METADATA.items() if k != "sae_lens_version"}
    old = {"hook_point" if k == "hook_name" else k: v for k, v in unversioned.items()}
    for number, cfg in enumerate(({}, {"metadata": unversioned}, {"metadata": None, **old})):
        source = write_sae_lens(tmp_path / f"{number}", "standard", **cfg)
        cpsae.convert(source, tmp_path / f"run{number}")
        config = json.loads((tmp_path / f"run{number}/config.json").read_text())
        origin = config["source"]["origin"]
        assert (origin["layer"], origin["point"]) == (19, "resid_post")
        assert (origin["model"], origin["context_size"]) == ("gemma-2-2b", 128)
        assert (origin["prepend_bos"], origin["first_position"]) == (True, 1)
        assert origin["dataset"] == "monology/pile-uncopyrighted"


def test_a_topk_of_before_6(tmp_path) -> None:
    """It was `standard` with an activation function of its own."""
    source = write_sae_lens(tmp_path / "new", "topk", apply_b_dec_to_input=True)
    cfg = json.loads((source / "cfg.json").read_text())
    named = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": cfg.pop("k")}}
    expected = sae_lens_plainly(source, rows())
    old = {**cfg, "architecture": "standard", "metadata": None, **named}
    (source / "cfg.json").write_text(json.dumps(old))
    assert relative(converted(tmp_path, source)(rows()), expected) < 1e-5


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_checkpoint_of_batchtopk(tmp_path, architecture) -> None:
    """Its threshold is in the units of latents of decoder rows of norm 1."""
    source = write_sae_lens(
        tmp_path / "sae", architecture, False, k=5.0, rescale_acts_by_decoder_norm=True
    )
    w = load_file(source / "sae_weights.safetensors")
    threshold = torch.tensor(3.25, dtype=torch.float64)
    save_file({**w, "topk_threshold": threshold}, source / "sae_weights.safetensors")
    sae = converted(tmp_path, source)
    assert (sae.kind.name, sae.kind.k) == (architecture.replace("_", "-"), 5)
    x = rows().double() - w["b_dec"].double()
    norms = w["W_dec"].double().norm(dim=1)
    z = (x @ w["W_enc"].double() + w["b_enc"].double()) * norms
    a = z.relu() * (z > 3.25)
    assert relative(sae.encode(rows()), a) < 1e-5
    assert relative(sae(rows()), a / norms @ w["W_dec"].double() + w["b_dec"].double()) < 1e-5


@pytest.mark.parametrize(
    ("level", "k", "kind"), [(2.0, 5, "batchtopk"), (None, 5, "jumprelu"), (2.0, 4.5, "jumprelu")]
)
def test_what_batchtopk_trained_can_go_on_as_it(tmp_path, level, k, kind) -> None:
    """It is saved as JumpReLU with one threshold for all."""
    trained = {"training_architecture": "batchtopk", "training_architecture_details": {"k": k}}
    source = write_sae_lens(tmp_path / "sae", "jumprelu", metadata={**METADATA, **trained})
    if level is not None:
        w = load_file(source / "sae_weights.safetensors")
        w["threshold"] = torch.full((N,), level)
        save_file(w, source / "sae_weights.safetensors")
    sae = converted(tmp_path, source)
    assert sae.kind.name == kind
    assert relative(sae(rows()), sae_lens_plainly(source, rows())) < 1e-5


def test_half_precision_is_widened(tmp_path) -> None:
    source = write_sae_lens(tmp_path / "sae", "gated", dtype="bfloat16")
    w = load_file(source / "sae_weights.safetensors")
    w = {name: tensor.bfloat16() for name, tensor in w.items()}
    save_file(w, source / "sae_weights.safetensors")
    sae = converted(tmp_path, source)
    save_file({k: v.float() for k, v in w.items()}, source / "sae_weights.safetensors")
    assert relative(sae(rows()), sae_lens_plainly(source, rows())) < 1e-5


def test_a_row_of_zeros_in_the_decoder(tmp_path) -> None:
    source = write_sae_lens(tmp_path / "sae", "standard", unit=False)
    w = load_file(source / "sae_weights.safetensors")
    w["W_dec"][3] = 0
    save_file(w, source / "sae_weights.safetensors")
    found = converted(tmp_path, source)(rows()).numpy()
    assert np.isfinite(found).all()
    assert relative(found, sae_lens_plainly(source, rows())) < 1e-5


@pytest.mark.parametrize(
    ("cfg", "text"),
    [
        (
            {"architecture": "transcoder"},
            "architecture transcoder: no kind of ours is like it; of ",
        ),
        ({"architecture": "abs-topk"}, "architecture abs-topk: no kind of ours"),
        ({"architecture": "cpsae_lca"}, "cpsae_lca: was exported by cpsae: take the run"),
        ({"activation_fn": "tanh-relu"}, "activation_fn tanh-relu: no kind of ours has it"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale: no kind"),
        ({"normalize_activations": "covariance_whitening"}, "whitening.*fold_activation_whitening"),
        ({"d_sae": N + 1}, r"W_enc has shape \(24, 40\), expected \(24, 41\)"),
        ({"d_in": "wide"}, "d_in is 'wide', expected a whole number above 0"),
        ({"d_in": None}, "d_in is None, expected"),
        ({"architecture": "gated"}, "has no tensor b_gate, b_mag, r_mag and has a tensor b_enc, "),
        ({"architecture": "topk", "k": N + 1}, "k is 41, expected a whole number"),
        ({"architecture": "topk", "k": True}, "k is True, expected a whole number"),
    ],
)
def test_refusals(tmp_path, cfg, text) -> None:
    source = write_sae_lens(tmp_path / "sae", "standard")
    changed = {**json.loads((source / "cfg.json").read_text()), **cfg}
    (source / "cfg.json").write_text(json.dumps(changed))
    with pytest.raises(SourceError, match=text):
        cpsae.convert(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        ("b_enc", torch.full((N,), float("nan")), "b_enc holds NaN or Inf"),
        ("W_skip", torch.zeros(D, D), "has a tensor W_skip, which architecture standard has no"),
        ("scaling_factor", torch.full((N,), 2.0), "scaling_factor is not 1: latents are scaled"),
    ],
)
def test_tensors_that_would_change_the_function(tmp_path, name, tensor, text) -> None:
    source = write_sae_lens(tmp_path / "sae", "standard")
    w = load_file(source / "sae_weights.safetensors")
    save_file({**w, name: tensor}, source / "sae_weights.safetensors")
    with pytest.raises(SourceError, match=text):
        cpsae.convert(source, tmp_path / "run")


def test_a_scale_of_ones_is_none(tmp_path) -> None:
    source = write_sae_lens(tmp_path / "sae", "standard")
    w = load_file(source / "sae_weights.safetensors")
    save_file({**w, "scaling_factor": torch.ones(N)}, source / "sae_weights.safetensors")
    assert converted(tmp_path, source).n_latents == N


def test_a_model_that_was_loaded_in_another_way_is_told(tmp_path) -> None:
    loaded = {**METADATA, "model_from_pretrained_kwargs": {"center_writing_weights": True}}
    source = write_sae_lens(tmp_path / "sae", "standard", metadata=loaded)
    [note] = cpsae.convert(source, tmp_path / "run").notes
    assert note.startswith('its model was loaded with {"center_writing_weights": true}')


@pytest.mark.parametrize("normalize", ["none", "unit", "sqrt-d", "layer", "layer-variance"])
@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "jumprelu", "gated"])
def test_back_from_an_export(tmp_path, kind, normalize) -> None:
    """The run again, of its enabled features."""
    run = make_run(tmp_path / "first", kind, normalize)
    cpsae.export(run, "sae-lens", tmp_path / "out")
    again = converted(tmp_path, tmp_path / "out")
    first, x = cpsae.load(run), rows(size=40)
    assert again.n_latents == first.n_enabled
    assert relative(again(x), first(x)) < 1e-5
