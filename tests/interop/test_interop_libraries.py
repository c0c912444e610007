"""Exported runs in the libraries themselves, where they are installed, on raw vectors."""

import re
import sys
from pathlib import Path

import pytest
import torch
from small_runs import CONSTANTS, FORMS, SCALE, make_run, plainly, relative, rows

import cpsae
from cpsae.errors import ExportError

sys.path.insert(0, str(Path(__file__).parents[2] / "pipelines/interop"))
from round_trips import LOADERS, compare  # noqa: E402

MODULES = {
    "sae-lens": "sae_lens",
    "saebench": "sae_bench",
    "dictionary-learning": "dictionary_learning",
    "sparsify": "sparsify",
}
TAKES = {
    "dictionary-learning": {"relu", "topk", "jumprelu", "gated"},
    "sparsify": {"topk"},
}
NORMALIZATIONS = ("none", "unit", "sqrt-d", "layer", "layer-variance")


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", CONSTANTS)
@pytest.mark.parametrize("target", LOADERS)
@pytest.mark.filterwarnings("ignore")
def test_the_library_computes_what_cpsae_computes(tmp_path, target, kind, normalize) -> None:
    pytest.importorskip(MODULES[target])
    run = make_run(tmp_path / "run", kind, normalize)
    per_row = normalize.startswith("layer")
    if FORMS[kind] not in TAKES.get(target, FORMS.values()) or (per_row and target != "sae-lens"):
        with pytest.raises(ExportError, match=f"kind '{kind}'|normalize={normalize}"):
            cpsae.export(run, target, tmp_path / "out")
        return
    done = cpsae.export(run, target, tmp_path / "out")
    x = rows(normalize)
    found = compare(run, tmp_path / "out", target, done.files.latent_scale, x)
    assert found.chosen == 0
    assert found.latents < 1e-5 and found.outputs < 1e-5
    loaded = LOADERS[target](tmp_path / "out")
    latents, outputs = plainly(cpsae.load(run), x)
    with torch.no_grad():
        a = loaded.encode(x)
        assert relative(a / done.files.latent_scale, latents) < 1e-5
        assert relative(loaded.decode(a), outputs) < 1e-5


def test_layer_norm_of_sae_lens_is_ours_but_for_its_epsilon(tmp_path) -> None:
    """(x - mean) / (std + 1e-5), std over d - 1, of the same row to encode and decode."""
    sae_lens = pytest.importorskip("sae_lens")
    run = make_run(tmp_path / "run", "relu", "layer")
    cpsae.export(run, "sae-lens", tmp_path / "out")
    x = rows("layer").double()
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "out", dtype="float64")
    ours = cpsae.load(run).normalizer.normalize(x).double()
    deviation = x.std(dim=1, keepdim=True)
    found = theirs.run_time_activation_norm_fn_in(x)
    assert relative(found, ours * (x.shape[1] - 1) ** 0.5 * deviation / (deviation + 1e-5)) < 1e-6
    back = theirs.run_time_activation_norm_fn_out(found)
    assert relative(back, x) < 1e-5
    with pytest.raises(AttributeError):  # why SAEBench, which decodes twice, gets no such run
        theirs.run_time_activation_norm_fn_out(found)


@pytest.mark.filterwarnings("error")
def test_sae_lens_keeps_the_metadata_and_warns_of_nothing(tmp_path) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    cpsae.export(make_run(tmp_path / "run"), "sae-lens", tmp_path / "out")
    cfg = sae_lens.SAE.load_from_disk(tmp_path / "out").cfg
    assert (cfg.apply_b_dec_to_input, cfg.normalize_activations) == (False, "none")
    known = cfg.metadata
    assert (known.model_name, known.hook_name) == ("google/gemma-2-2b", "blocks.19.hook_resid_post")
    assert (known.context_size, known.prepend_bos, known.seqpos_slice) == (128, True, [1, None])
    assert known.dataset_path == "monology/pile-uncopyrighted"
    assert (known.model_revision, known.latent_scale) == ("c5ebcd40", SCALE)
    assert known.sae_lens_training_version is None


def test_sae_lens_writes_again_what_it_loaded(tmp_path) -> None:
    """Strict loading, in both ways."""
    sae_lens = pytest.importorskip("sae_lens")
    cpsae.export(make_run(tmp_path / "run", "gated"), "sae-lens", tmp_path / "out")
    sae_lens.SAE.load_from_disk(tmp_path / "out").save_model(tmp_path / "again")
    again = sae_lens.SAE.load_from_disk(tmp_path / "again")
    first = sae_lens.SAE.load_from_disk(tmp_path / "out")
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert again.cfg.metadata.hook_name == first.cfg.metadata.hook_name


@pytest.mark.filterwarnings("ignore")
def test_saebench_finds_decoder_norm_model_and_layer(tmp_path, capsys) -> None:
    general_utils = pytest.importorskip("sae_bench.sae_bench_utils.general_utils")
    from sae_lens import SAE

    cpsae.export(make_run(tmp_path / "run"), "saebench", tmp_path / "out", model="gemma-2-2b")
    _, sae, _ = general_utils.load_and_format_sae("x", SAE.load_from_disk(tmp_path / "out"), "cpu")
    assert general_utils.check_decoder_norms(sae.W_dec.data)
    assert (sae.cfg.hook_layer, sae.cfg.model_name) == (19, "gemma-2-2b")
    assert not re.search("not normalized", capsys.readouterr().out)


def test_what_sae_lens_says_without_our_classes(tmp_path) -> None:
    """Ours are registered by an import, and in no other way."""
    pytest.importorskip("sae_lens")
    from sae_lens.registry import SAE_CLASS_REGISTRY

    import cpsae.interop.saelens_classes  # noqa: F401

    done = cpsae.export(make_run(tmp_path / "run", "competitive"), "sae-lens", tmp_path / "out")
    assert done.files.what in SAE_CLASS_REGISTRY
    assert done.files.load.startswith("import cpsae.interop.saelens_classes; ")
