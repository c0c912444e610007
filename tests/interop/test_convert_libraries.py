"""Converted runs beside the libraries that their folders are of, where they are installed: outputs
on raw vectors, to 1e-5."""

from pathlib import Path

import pytest
import torch
from published_folders import (
    ARCHITECTURES,
    DICTIONARIES,
    D,
    K,
    N,
    rows,
    write_dictionary,
    write_sae_lens,
    write_sparsify,
)
from small_runs import relative

import cpsae


def outputs(tmp_path, source, x, **asked):
    """Raw outputs of the converted run."""
    cpsae.convert(source, tmp_path / "run", **asked)
    with torch.no_grad():
        return cpsae.load(tmp_path / "run")(x)


@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.filterwarnings("ignore")
def test_sae_lens(tmp_path, architecture, unit, centred, normalize) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    cfg = {"apply_b_dec_to_input": centred, "normalize_activations": normalize}
    source = write_sae_lens(tmp_path / "sae", architecture, unit, **cfg)
    x = rows(size=20)
    with torch.no_grad():
        expected = sae_lens.SAE.load_from_disk(source)(x)
    assert relative(outputs(tmp_path, source, x), expected) < 1e-5


@pytest.mark.parametrize("architecture", ["standard", "topk", "batchtopk", "jumprelu", "gated"])
@pytest.mark.filterwarnings("ignore")
def test_what_sae_lens_trains_and_saves(tmp_path, architecture) -> None:
    """As its own code saves it, for inference and as a checkpoint, one scale of rows folded."""
    pytest.importorskip("sae_lens")
    from sae_lens import SAE
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import TrainingSAE

    torch.manual_seed(0)
    sae_class, config_class = get_sae_training_class(architecture)
    more = {"k": K} if "topk" in architecture else {}
    config = config_class(d_in=D, d_sae=N, decoder_init_norm=None, **more)
    training = sae_class(config)
    for parameter in training.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 3)
    if architecture == "batchtopk":
        training.topk_threshold.fill_(1.25)
    training.fold_activation_norm_scaling_factor(0.2)
    training.save_inference_model(tmp_path / "saved")
    training.save_model(tmp_path / "checkpoint")
    x = rows()
    with torch.no_grad():
        expected = SAE.load_from_disk(tmp_path / "saved")(x)
    found = outputs(tmp_path, tmp_path / "saved", x)
    assert relative(found, expected) < 1e-5
    again = outputs(tmp_path / "c", tmp_path / "checkpoint", x)
    assert relative(again, expected) < 1e-5
    if architecture not in ("batchtopk", "jumprelu"):
        with torch.no_grad():
            whole = TrainingSAE.load_from_disk(tmp_path / "checkpoint")(x)
        assert relative(again, whole) < 1e-5
    kind = cpsae.load(tmp_path / "run").kind.name
    assert kind == {"standard": "relu"}.get(architecture, architecture)


@pytest.mark.filterwarnings("ignore")
def test_one_scale_as_sae_lens_folds_it(tmp_path) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    scaled = {"normalize_activations": "expected_average_only_in"}
    source = write_sae_lens(tmp_path / "sae", "gated", **scaled)
    theirs = sae_lens.SAE.load_from_disk(source)
    theirs.fold_activation_norm_scaling_factor(0.37)
    x = rows()
    with torch.no_grad():
        expected = theirs(x)
    assert relative(outputs(tmp_path, source, x, scaling_factor=0.37), expected) < 1e-5


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("name", DICTIONARIES)
@pytest.mark.filterwarnings("ignore")
def test_dictionary_learning(tmp_path, name, unit) -> None:
    utils = pytest.importorskip("dictionary_learning.utils")
    source = write_dictionary(tmp_path / "ae", name, unit)
    if name == "MatryoshkaBatchTopKSAE":  # its loader leaves out what this class must be given
        from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE

        theirs = MatryoshkaBatchTopKSAE.from_pretrained(str(source / "ae.pt"), k=K)
    else:
        theirs, _ = utils.load_dictionary(str(source), "cpu")
    x = rows()
    with torch.no_grad():
        expected = theirs(x)
    assert relative(outputs(tmp_path, source, x), expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_sparsify(tmp_path) -> None:
    sparsify = pytest.importorskip("sparsify")
    source = write_sparsify(tmp_path / "coders/layers.7")
    coder = sparsify.SparseCoder.load_from_disk(source)
    x = rows()
    with torch.no_grad():
        acts, indices, _ = coder.encode(x)
        expected = coder.decode(acts, indices)
    assert relative(outputs(tmp_path, source, x), expected) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_gemma_scope_as_sae_lens_loads_it(tmp_path, monkeypatch) -> None:
    """Its loader, given the file that it would have fetched."""
    loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")
    from published_folders import write_gemma_scope
    from sae_lens import SAE

    folder = "layer_20/width_16k/average_l0_71"
    source = write_gemma_scope(tmp_path / "gemma-scope-2b-pt-res" / folder)
    monkeypatch.setattr(loaders, "hf_hub_download", lambda **_: str(source / "params.npz"))
    cfg, weights, _ = loaders.gemma_2_sae_huggingface_loader(
        "google/gemma-scope-2b-pt-res", folder, cfg_overrides={"d_in": D, "d_sae": N}
    )
    cfg = loaders.handle_config_defaulting(cfg)
    theirs = SAE.from_dict(cfg)
    theirs.load_state_dict(weights)
    x = rows()
    with torch.no_grad():
        expected = theirs(x)
    assert relative(outputs(tmp_path, source, x), expected) < 1e-5
    assert cpsae.load(Path(tmp_path / "run")).hook["layer"] == 20
