"""Files, keys and shapes of each format, and what its loader must not be given."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import (
    CONSTANTS,
    FORMS,
    MANIFEST,
    SCALE,
    D,
    M,
    make_run,
    make_sae,
    plainly,
    relative,
    rows,
)

import cpsae
from cpsae.errors import ExportError

ARCHITECTURES = {
    "relu": ("standard", {}),
    "topk": ("topk", {"k", "rescale_acts_by_decoder_norm"}),
    "jumprelu": ("jumprelu", {}),
    "gated": ("gated", {}),
    "softmax": ("cpsae_softmax", {"temperature", "over"}),
    "lca": ("cpsae_lca", {"first_threshold", "threshold", "inhibition"}),
}
COMMON = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input"),
    *("normalize_activations", "reshape_activations", "metadata"),
}
MORE_TENSORS = {"jumprelu": {"threshold"}, "gated": {"b_gate", "b_mag", "r_mag"}}
NORMALIZATIONS = ("none", "unit", "sqrt-d", "layer", "layer-variance")


def exported(tmp_path, target, kind="batchtopk", normalize="unit", **changes):
    cpsae.export(make_run(tmp_path / "run", kind, normalize, **changes), target, tmp_path / "out")
    return tmp_path / "out"


def cfg_of(folder):
    return json.loads((folder / "cfg.json").read_text())


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", CONSTANTS)
def test_a_sae_lens_folder(tmp_path, kind, normalize) -> None:
    """With the five traps: a version, or metadata is rebuilt; b_dec not subtracted, which is the
    default; one scale never left to `expected_average_only_in`, which loading forgets; layer_norm
    alone left to the library; no arguments of the model, which warn at each load."""
    out = exported(tmp_path, "sae-lens", kind, normalize)
    names = {"cfg.json", "sae_weights.safetensors", "README.md"}
    assert {file.name for file in out.iterdir()} == names
    cfg, w = cfg_of(out), load_file(out / "sae_weights.safetensors")
    architecture, more = ARCHITECTURES[FORMS[kind]]
    assert (cfg["architecture"], cfg.keys()) == (architecture, COMMON | set(more))
    assert (cfg["d_in"], cfg["d_sae"], cfg["dtype"], cfg["device"]) == (D, M, "float32", "cpu")
    assert int(cfg["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert cfg["apply_b_dec_to_input"] is False
    per_row = normalize.startswith("layer")
    assert cfg["normalize_activations"] == ("layer_norm" if per_row else "none")
    assert cfg["metadata"]["model_from_pretrained_kwargs"] == {}
    plain = {"W_enc", "W_dec", "b_dec"} | (set() if kind == "gated" else {"b_enc"})
    assert w.keys() == plain | MORE_TENSORS.get(FORMS[kind], set())  # loading is strict
    assert w["W_enc"].shape == (D, M) and w["W_dec"].shape == (M, D)
    assert all(tensor.dtype == torch.float32 for tensor in w.values())


def test_rows_of_sae_lens_layer_norm_are_folded_in(tmp_path) -> None:
    """W_enc stays, levels and b_dec grow by sqrt(d - 1), latents too: SAELens, in numpy."""
    for normalize in ("layer", "layer-variance"):
        run = make_run(tmp_path / f"{normalize}-run", "batchtopk", normalize)
        out = tmp_path / normalize
        scale = cpsae.export(run, "sae-lens", out).files.latent_scale
        assert scale == pytest.approx(np.sqrt((D - 1) / (D if "variance" in normalize else 1)))
        sae, x = cpsae.load(run), rows(normalize)
        loaded = load_file(out / "sae_weights.safetensors")
        w = {name: tensor.double().numpy() for name, tensor in loaded.items()}
        assert np.array_equal(w["W_enc"], sae.W_enc[:, :M].detach().double().numpy())
        raw = x.double().numpy()
        mean, deviation = raw.mean(1, keepdims=True), raw.std(1, ddof=1, keepdims=True)
        z = (raw - mean) / (deviation + 1e-5) @ w["W_enc"] + w["b_enc"]
        a = np.maximum(z, 0) * (z > w["threshold"])
        latents, outputs = plainly(sae, x)
        assert relative(a / scale, latents) < 1e-5
        assert relative((a @ w["W_dec"] + w["b_dec"]) * deviation + mean, outputs) < 1e-5


def test_metadata_says_where_the_rows_are_from(tmp_path) -> None:
    known = cfg_of(exported(tmp_path, "sae-lens"))["metadata"]
    assert known | {"sae_lens_version": 0, "cpsae_version": 0} == {
        "sae_lens_version": 0,
        "cpsae_version": 0,
        "sae_lens_training_version": None,
        "model_name": "google/gemma-2-2b",
        "model_class_name": "HookedTransformer",
        "model_from_pretrained_kwargs": {},
        "model_revision": "c5ebcd40",
        "model_dtype": "bfloat16",
        "hook_name": "blocks.19.hook_resid_post",
        "hook_head_index": None,
        "prepend_bos": True,
        "context_size": 128,
        "seqpos_slice": [1, None],
        "exclude_special_tokens": False,
        "dataset_path": "monology/pile-uncopyrighted",
        "dataset_revision": "3be90335",
        "dataset_split": "train",
        "neuronpedia_id": None,
        "cpsae_kind": "batchtopk",
        "latent_scale": SCALE,
        "preset": "batchtopk",
        "step": None,
        "store_identity": "ab" * 32,
    }


@pytest.mark.parametrize("point", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
def test_places_have_their_names_in_transformer_lens(tmp_path, point) -> None:
    out = exported(tmp_path, "sae-lens", hook={"layer": 5, "name": point})
    assert cfg_of(out)["metadata"]["hook_name"] == f"blocks.5.hook_{point}"


def test_rows_without_a_model_and_with_every_position(tmp_path) -> None:
    none = dict.fromkeys(("model", "hook", "tokenizer", "dataset"))
    contexts = {**MANIFEST["contexts"], "first_position": 0}
    known = cfg_of(exported(tmp_path, "sae-lens", contexts=contexts, **none))["metadata"]
    assert known["seqpos_slice"] == [None]
    assert [known[key] for key in ("model_name", "hook_name", "prepend_bos")] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "dict_class", "names"),
    [
        ("relu", "AutoEncoder", {"encoder.bias", "bias"}),
        ("topk", "AutoEncoderTopK", {"encoder.bias", "b_dec", "k", "threshold"}),
        ("gated", "GatedAutoEncoder", {"decoder_bias", "r_mag", "gate_bias", "mag_bias"}),
        ("batchtopk", "JumpReluAutoEncoder", {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}),
    ],
)
def test_a_dictionary_learning_folder(tmp_path, kind, dict_class, names) -> None:
    out = exported(tmp_path, "dictionary-learning", kind)
    w = torch.load(out / "ae.pt", weights_only=True)
    linear = set() if "W_enc" in names else {"encoder.weight", "decoder.weight"}
    assert w.keys() == linear | names
    if linear:
        assert w["encoder.weight"].shape == (M, D) and w["decoder.weight"].shape == (D, M)
    size = sum(tensor.numel() * tensor.element_size() for tensor in w.values())
    assert (out / "ae.pt").stat().st_size < size + 10_000, "views would bring all along"
    config = json.loads((out / "config.json").read_text())
    trainer = config["trainer"]
    assert (trainer["dict_class"], trainer["layer"]) == (dict_class, 19)
    assert (trainer["activation_dim"], trainer["dict_size"]) == (D, M)
    assert (trainer["lm_name"], trainer.get("k")) == (
        "google/gemma-2-2b",
        CONSTANTS["topk"]["k"] if kind == "topk" else None,
    )
    assert config["buffer"]["ctx_len"] == 128


@pytest.mark.parametrize("kind", ["relu", "topk", "gated"])
def test_the_bias_gives_back_what_a_library_takes_away(tmp_path, kind) -> None:
    """These classes encode x - b_dec: in numpy."""
    out = exported(tmp_path, "dictionary-learning", kind)
    w = {k: v.double().numpy() for k, v in torch.load(out / "ae.pt", weights_only=True).items()}
    x = rows("unit")
    bias = next(w[name] for name in ("bias", "b_dec", "decoder_bias") if name in w)
    u = (x.double().numpy() - bias) @ w["encoder.weight"].T
    if kind == "gated":
        a = np.maximum(u * np.exp(w["r_mag"]) + w["mag_bias"], 0) * (u + w["gate_bias"] > 0)
    else:
        a = np.maximum(u + w["encoder.bias"], 0)
        a *= 1 if kind == "relu" else a >= np.sort(a, axis=1)[:, [-int(w["k"])]]
    latents, outputs = plainly(make_sae(kind, "unit"), x)
    assert relative(a / SCALE, latents) < 1e-5
    assert relative(a @ w["decoder.weight"].T + bias, outputs) < 1e-5


def test_a_sparsify_folder(tmp_path) -> None:
    out = exported(tmp_path, "sparsify", "topk")
    names = {"cfg.json", "sae.safetensors", "cpsae.json", "README.md"}
    assert {f.name for f in out.iterdir()} == names
    assert json.loads((out / "cpsae.json").read_text())["hook_name"] == "blocks.19.hook_resid_post"
    cfg, w = cfg_of(out), load_file(out / "sae.safetensors")
    assert (cfg["activation"], cfg["k"], cfg["d_in"], cfg["num_latents"]) == ("topk", 5, D, M)
    assert not (cfg["transcode"] or cfg["skip_connection"] or cfg["multi_topk"])
    shapes = {name: tuple(tensor.shape) for name, tensor in w.items()}
    assert shapes == {
        "encoder.weight": (M, D),
        "encoder.bias": (M,),
        "W_dec": (M, D),
        "b_dec": (D,),
    }


@pytest.mark.parametrize("target", ["dictionary-learning", "sparsify", "saebench"])
@pytest.mark.parametrize("normalize", ["layer", "layer-variance"])
def test_normalisations_without_a_place(tmp_path, target, normalize) -> None:
    with pytest.raises(ExportError, match=f"normalize={normalize}: .* takes unit, sqrt-d and none"):
        exported(tmp_path, target, "topk", normalize)


@pytest.mark.parametrize("kind", ["competitive", "lca-batchtopk"])
def test_kinds_without_a_place(tmp_path, kind) -> None:
    for target in ("dictionary-learning", "sparsify"):
        with pytest.raises(ExportError, match=f"kind '{kind}' .* at inference\\): .*; it takes"):
            exported(tmp_path / target, target, kind)


def test_the_kind_before_its_second_threshold_is_measured() -> None:
    """From a checkpoint, `lca-batchtopk` is BatchTopK."""
    from cpsae.interop import sae_lens
    from cpsae.interop.origin import Origin

    sae = make_sae("lca-batchtopk", "unit", {"threshold": 0.0})
    assert sae_lens.export(sae, Origin.of_run({})).what == "jumprelu"


def test_rows_too_short_for_the_epsilon_of_layer_norm(tmp_path) -> None:
    with pytest.raises(ExportError, match="adds 1e-5 to each row's standard deviation, which is"):
        exported(tmp_path, "sae-lens", normalize="layer", norm=0.05)
    run = make_run(tmp_path / "long", normalize="layer")
    [note] = cpsae.export(run, "sae-lens", tmp_path / "long-out").files.notes
    assert "(about 40.8 here), which makes rows shorter by a part of 2e-07" in note


@pytest.mark.parametrize("name", ["/home/me/models/gemma", "./gemma", "gemma.gguf", "a/b/gemma"])
def test_paths_of_a_machine_stay_there(tmp_path, name) -> None:
    model, dataset = ({**MANIFEST[key], "id": name} for key in ("model", "dataset"))
    run = make_run(tmp_path / "run", model=model, dataset=dataset)
    done = cpsae.export(run, "sae-lens", tmp_path / "out")
    last = name.rpartition("/")[2]
    known = cfg_of(tmp_path / "out")["metadata"]
    assert (known["model_name"], known["dataset_path"]) == (last, last)
    assert done.files.notes[0].startswith(
        f"the store's model was a local one: SAELens is told '{last}'"
    )
    named = cpsae.export(run, "sae-lens", tmp_path / "named", model="google/gemma-2-2b")
    assert named.files.notes == ()


def test_saebench_needs_a_model(tmp_path) -> None:
    with pytest.raises(ExportError, match="store names no model: SAEBench runs"):
        exported(tmp_path, "saebench", model=None)
    cpsae.export(tmp_path / "run", "saebench", tmp_path / "named", model="gemma-2-2b")
    assert cfg_of(tmp_path / "named")["metadata"]["model_name"] == "gemma-2-2b"


def test_a_kind_that_says_no_form(tmp_path, monkeypatch) -> None:
    from cpsae.sae.kinds.relu import ReLU

    monkeypatch.setattr(ReLU, "form", lambda _self, _w: None)
    with pytest.raises(ExportError, match="kind 'relu': does not say what it computes"):
        exported(tmp_path, "safetensors", "relu")
