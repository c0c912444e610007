"""Folders of Gemma Scope, sparsify, dictionary_learning and our own export as runs: the function in
float64 numpy, what they say of themselves, refusals."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from published_folders import (
    DICTIONARIES,
    D,
    K,
    N,
    dictionary_plainly,
    gemma_scope_plainly,
    rows,
    sparsify_plainly,
    write_dictionary,
    write_gemma_scope,
    write_sae_lens,
    write_sparsify,
)
from small_runs import make_run, relative

import cpsae
from cpsae.errors import SourceError

RESIDUAL = "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"


def converted(tmp_path, source, **asked):
    cpsae.convert(source, tmp_path / "run", **asked)
    return cpsae.load(tmp_path / "run")


def origin(tmp_path):
    return json.loads((tmp_path / "run/config.json").read_text())["source"]["origin"]


@pytest.mark.parametrize("second", [False, True])
def test_gemma_scope(tmp_path, second) -> None:
    sae = converted(tmp_path, write_gemma_scope(tmp_path / RESIDUAL, second))
    assert sae.kind.name == "jumprelu"
    assert relative(sae(rows()), gemma_scope_plainly(rows())) < 1e-5


@pytest.mark.parametrize(
    ("folder", "model", "place"),
    [
        (RESIDUAL, "google/gemma-2-2b", [20, "resid_post", None]),
        (
            "models--google--gemma-scope-9b-it-res/snapshots/ab/layer_9/width_16k/average_l0_10",
            "google/gemma-2-9b-it",
            [9, "resid_post", None],
        ),
        (
            "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_1",
            "google/gemma-2-2b",
            [3, "mlp_out", None],
        ),
        (
            "gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_1",
            "google/gemma-2-2b",
            [None, None, "blocks.3.attn.hook_z"],
        ),
        (
            "gemma-scope-2-270m-pt/resid_post/layer_5_width_16k_l0_small",
            "google/gemma-3-270m-pt",
            [5, "resid_post", None],
        ),
        ("copied", None, [None, None, None]),
    ],
)
def test_gemma_scope_is_told_by_the_names_of_its_folders(tmp_path, folder, model, place) -> None:
    converted(tmp_path, write_gemma_scope(tmp_path / folder))
    known = origin(tmp_path)
    assert known["model"] == model
    assert [known[key] for key in ("layer", "point", "place")] == place


def test_what_the_caller_knows_comes_first(tmp_path) -> None:
    source = write_gemma_scope(tmp_path / "copied")
    converted(tmp_path, source, model="google/gemma-2-2b", layer=7)
    known = origin(tmp_path)
    assert (known["model"], known["layer"], known["point"]) == (
        "google/gemma-2-2b",
        7,
        "resid_post",
    )


@pytest.mark.parametrize("folder", ["gemma-scope-2b-pt-transcoders/layer_3", "x/embedding/w"])
def test_of_gemma_scope_what_is_no_autoencoder_of_rows(tmp_path, folder) -> None:
    with pytest.raises(SourceError, match="kind, which no kind of ours is like"):
        cpsae.convert(write_gemma_scope(tmp_path / folder), tmp_path / "run")


def test_pickles_in_an_npz_are_not_read(tmp_path) -> None:
    folder = write_gemma_scope(tmp_path / "g")
    with np.load(folder / "params.npz") as content:
        arrays = dict(content)
    np.savez(folder / "params.npz", **{**arrays, "b_dec": np.array([print], dtype=object)})
    with pytest.raises(SourceError, match=r"params\.npz: cannot be read .*allow_pickle"):
        cpsae.convert(folder, tmp_path / "run")
    (folder / "params.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(SourceError, match=r"params\.npz: cannot be read"):
        cpsae.convert(folder, tmp_path / "run")


def test_sparsify(tmp_path) -> None:
    sae = converted(tmp_path, write_sparsify(tmp_path / "coders/layers.7"))
    assert (sae.kind.name, sae.kind.k, sae.n_latents) == ("topk", K, N)
    assert relative(sae(rows()), sparsify_plainly(rows())) < 1e-5
    known = origin(tmp_path)
    assert (known["model"], known["dataset"]) == ("EleutherAI/pythia-160m", "some/texts")
    assert (known["layer"], known["point"], known["context_size"]) == (7, "resid_post", 512)


def test_sparsify_without_a_number_of_latents(tmp_path) -> None:
    source = write_sparsify(tmp_path / "c/layers.7", num_latents=0, expansion_factor=2)
    with pytest.raises(
        SourceError, match=r"encoder.weight has shape \(40, 24\), expected \(48, 24"
    ):
        cpsae.convert(source, tmp_path / "run")


def test_another_module_is_a_place_without_a_name_of_ours(tmp_path) -> None:
    """What a module gives is not always what is added to the residual stream."""
    converted(tmp_path, write_sparsify(tmp_path / "coders/layers.7.mlp"))
    assert (origin(tmp_path)["layer"], origin(tmp_path)["place"]) == (None, "layers.7.mlp")


@pytest.mark.parametrize(
    ("cfg", "text"),
    [
        ({"activation": "groupmax"}, "activation groupmax: no kind of ours is like it; topk is"),
        ({"transcode": True}, "transcode is on: no kind"),
        ({"skip_connection": True}, "skip_connection is on: no kind"),
        ({"signed": True}, "signed is on: no kind"),
        ({"k": 0}, "k is 0, expected a whole number above 0"),
    ],
)
def test_of_sparsify_what_has_no_home(tmp_path, cfg, text) -> None:
    with pytest.raises(SourceError, match=text):
        cpsae.convert(write_sparsify(tmp_path / "c/layers.1", **cfg), tmp_path / "run")


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionary_learning(tmp_path, name, unit) -> None:
    sae = converted(tmp_path, write_dictionary(tmp_path / "ae", name, unit))
    assert relative(sae(rows()), dictionary_plainly(name, rows(), unit)) < 1e-5
    known = origin(tmp_path)
    assert (known["model"], known["layer"]) == ("google/gemma-2-2b", 19)
    assert (known["point"], known["context_size"]) == ("resid_post", 128)
    kinds = {"BatchTopKSAE": "batchtopk", "MatryoshkaBatchTopKSAE": "matryoshka-batchtopk"}
    if name in kinds:
        assert sae.kind.name == (kinds[name] if unit else "jumprelu")


def test_a_threshold_that_was_never_measured(tmp_path) -> None:
    """It is -1 then, and everything above 0 is on."""
    source = write_dictionary(tmp_path / "ae", "BatchTopKSAE", threshold=torch.tensor(-1.0))
    [note] = cpsae.convert(source, tmp_path / "run").notes
    assert note.startswith("its threshold was never measured")
    found = cpsae.load(tmp_path / "run")(rows())
    assert relative(found, dictionary_plainly("AutoEncoder", rows())) < 1e-5


def test_the_pickle_is_refused_with_the_command_that_replaces_it(tmp_path) -> None:
    source = write_dictionary(tmp_path / "a 'b' \"c\"", "AutoEncoder")
    (source / "ae.safetensors").unlink()
    with pytest.raises(SourceError, match="is a pickle, and cpsae opens none") as refused:
        cpsae.convert(source, tmp_path / "run")
    program, *arguments = shlex.split(re.split("nothing of it: ", str(refused.value))[1])
    assert program == "python"
    subprocess.run([sys.executable, *arguments], check=True)
    sae = converted(tmp_path, source)
    assert relative(sae(rows()), dictionary_plainly("AutoEncoder", rows())) < 1e-5


@pytest.mark.parametrize("text", ['{"trainer": {"dict_class": "IdentityDict"}}', "{}"])
def test_of_dictionary_learning_what_has_no_home(tmp_path, text) -> None:
    source = write_dictionary(tmp_path / "ae", "AutoEncoder")
    (source / "config.json").write_text(text)
    with pytest.raises(SourceError, match=r"dict_class (IdentityDict|None): no kind of ours"):
        cpsae.convert(source, tmp_path / "run")


@pytest.mark.parametrize("normalize", ["unit", "layer", "layer-variance"])
@pytest.mark.parametrize("kind", ["topk", "gated", "batchtopk", "competitive"])
def test_our_own_plain_export(tmp_path, kind, normalize) -> None:
    run = make_run(tmp_path / "first", kind, normalize)
    cpsae.export(run, "safetensors", tmp_path / "out")
    if kind == "competitive":
        with pytest.raises(SourceError, match="form softmax .*from the run that it was exported"):
            cpsae.convert(tmp_path / "out", tmp_path / "run")
        return
    again, x = converted(tmp_path, tmp_path / "out"), rows(size=40)
    assert relative(again(x), cpsae.load(run)(x)) < 1e-5
    assert origin(tmp_path)["layer"] == 19


def test_a_file_stands_for_its_folder_and_a_folder_of_several_is_told(tmp_path) -> None:
    for layer in range(5):
        write_sae_lens(tmp_path / f"saes/{layer}", "standard")
    assert converted(tmp_path, tmp_path / "saes/3/cfg.json").d == D
    with pytest.raises(
        SourceError, match=r"is none itself; name one .*saes/0, .*/1, .*/2, and more"
    ):
        cpsae.convert(tmp_path / "saes", tmp_path / "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SourceError, match="holds no autoencoder in a format that is known .*sae-len"
    ):
        cpsae.convert(tmp_path / "empty", tmp_path / "other")
    with pytest.raises(SourceError, match=r"hf download google/scope --include 'layer_1/\*'"):
        cpsae.convert("google/scope/layer_1", tmp_path / "other")


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"{" * 100])
def test_weights_that_are_damaged(tmp_path, content) -> None:
    source = write_sparsify(tmp_path / "c/layers.1")
    (source / "sae.safetensors").write_bytes(content)
    with pytest.raises(SourceError, match=r"sae.safetensors: (cannot be read|has no tensor)"):
        cpsae.convert(source, tmp_path / "run")


def test_metadata_of_any_type_do_no_harm(tmp_path) -> None:
    odd = {"model_name": {"a": 1}, "hook_name": 3, "context_size": [1], "seqpos_slice": "x"}
    source = write_sae_lens(tmp_path / "sae", "standard", metadata=odd)
    assert converted(tmp_path, source).hook == {}
