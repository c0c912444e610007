"""Blocks that share weights, are skipped, run time first or on padded contexts, and text parts of
multi-modal models: every one against plain hooks on the model that was saved."""

import odd_models
import pytest
import torch
import transformers as t

from cpsae.errors import ModelError
from cpsae.models import TruncatedModel, describe, find_source, self_test

CPU = torch.device("cpu")
LENGTH = 12


@pytest.fixture
def context() -> torch.Tensor:
    """Two contexts without a special token."""
    return torch.randint(3, 55, (2, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", odd_models.MODELS)
def test_every_block_that_runs_on_text(kind, context, tmp_path) -> None:
    model = odd_models.save(kind, tmp_path)
    source = find_source(str(tmp_path))
    for layer, expected in enumerate(odd_models.outputs(kind, model, context)):
        if expected is None:
            with pytest.raises(ModelError, match=rf"layer {layer}: .* not run this block on text"):
                TruncatedModel.load(source, layer, torch.float32, CPU)
            continue
        truncated = TruncatedModel.load(source, layer, torch.float32, CPU)
        assert torch.equal(truncated.activations(context), expected), layer
        assert self_test(truncated, source, context).bit_equal
        truncated.probe(LENGTH + 1)


def test_mllama_skips_two_blocks(context, tmp_path) -> None:
    """So the test above does see some that do not run."""
    model = odd_models.save("mllama", tmp_path)
    outputs = odd_models.outputs("mllama", model, context)
    assert [rows is None for rows in outputs] == [False, True, False, False, True, False]


def test_several_sites_one_of_them_skipped(tmp_path) -> None:
    from cpsae.config.extraction import Site

    odd_models.save("mllama", tmp_path)
    with pytest.raises(ModelError, match="layer 1: .*choose another --layer"):
        TruncatedModel.load(find_source(str(tmp_path)), [Site(1), Site(3)], torch.float32, CPU)


def test_blocks_that_are_no_modules_when_they_run(tmp_path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = t.SqueezeBertConfig(vocab_size=61, num_attention_heads=4, embedding_size=32, **sizes)
    t.SqueezeBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="does not call its blocks as modules"):
        TruncatedModel.load(find_source(str(tmp_path)), 0, torch.float32, CPU)


@pytest.mark.parametrize("kept", [[], ["reader"], ["reader", "other_reader"]])
def test_parts_that_are_read_without_a_call_stay(kept, tmp_path) -> None:
    """Those beside them go."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    config = t.BertConfig(vocab_size=61, num_attention_heads=4, **sizes)
    t.BertModel(config).save_pretrained(tmp_path)
    truncated = TruncatedModel.load(find_source(str(tmp_path)), 1, torch.float32, CPU)
    model = truncated._model
    for name in ("idle", "reader", "other_reader"):
        model.add_module(name, torch.nn.Linear(3, 3))

    def read(module, _args, _kwargs):
        for name in kept:
            getattr(module, name).weight.sum()

    model.register_forward_pre_hook(read, with_kwargs=True)
    before = {site: rows.clone() for site, rows in truncated.rows(torch.full((1, 4), 7)).items()}
    truncated._keep_what_runs()
    found = {name for name, part in model.named_children() if isinstance(part, torch.nn.Linear)}
    assert found == set(kept)
    assert not set(truncated._unused[1]) & set(kept) and "idle" in truncated._unused[1]
    for site, rows in truncated.rows(torch.full((1, 4), 7)).items():
        assert torch.equal(rows, before[site])


@pytest.mark.parametrize("kind", odd_models.SHARING)
def test_shared_weights_are_counted_once(kind, tmp_path) -> None:
    model = odd_models.save(kind, tmp_path)
    description = describe(find_source(str(tmp_path)))
    assert description.parameters(odd_models.BLOCKS - 1) == sum(
        parameter.numel() for parameter in model.model.parameters()
    )
    assert min(description.block_parameters) > 0 and description.other_parameters > 0


@pytest.mark.parametrize("kind", odd_models.SHARING)
def test_a_shared_weight_that_is_missing_is_refused(kind, tmp_path) -> None:
    """A block may borrow from a block in front of it, never from nowhere."""
    from safetensors.torch import load_file, save_file

    odd_models.save(kind, tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    shared = [name for name in weights if "layers.1.shared_transf" in name]
    assert shared
    kept = {name: weight for name, weight in weights.items() if name not in shared}
    save_file(kept, file, metadata={"format": "pt"})
    source = find_source(str(tmp_path))
    with pytest.raises(ModelError, match="the checkpoint lacks"):
        TruncatedModel.load(source, 1, torch.float32, CPU)
    TruncatedModel.load(source, 0, torch.float32, CPU)
