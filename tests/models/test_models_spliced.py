"""Replacing rows in a whole model on its way, and models that have no next token to predict."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from cpsae.config.extraction import POINTS, Site
from cpsae.errors import ModelError
from cpsae.models.source import find_source
from cpsae.models.spliced import SplicedModel

CPU = torch.device("cpu")


@pytest.fixture
def load(saved):
    def make(kind, point="resid_post", layer=1, dtype=torch.float32, n_layers=3):
        source = find_source(str(saved(kind, n_layers)))
        return SplicedModel.load(source, Site(layer, point), dtype, CPU)

    return make


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("point", POINTS)
def test_left_alone_it_is_the_whole_model(load, saved, tokens, kind, point):
    model = load(kind, point)
    whole = AutoModelForCausalLM.from_pretrained(saved(kind, 3), attn_implementation="eager").eval()
    with torch.no_grad():
        expected = whole(tokens).logits
    assert torch.allclose(model.logits(tokens), expected, atol=1e-5, rtol=1e-5)
    seen = []
    same = model.logits(tokens, lambda rows: seen.append(rows.shape) or rows)  # type: ignore[func-returns-value]
    assert torch.equal(same, model.logits(tokens))
    assert seen == [(2, 16, 32)]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_a_change_at_a_position_reaches_no_earlier_one(load, tokens, kind):
    model = load(kind)
    before = model.logits(tokens)

    def doubled(rows):
        rows = rows.clone()
        rows[:, 7] *= -2
        return rows

    after = model.logits(tokens, doubled)
    assert torch.equal(after[:, :7], before[:, :7])
    assert (after[:, 7:14] != before[:, 7:14]).any(-1).all()  # Gemma's window is 8 long
    assert torch.equal(model.logits(tokens), before)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("point", POINTS)
def test_several_changes_run_the_early_blocks_once(load, tokens, kind, point):
    model = load(kind, point, layer=2)
    ran = []
    for number, part in enumerate(model._early):
        _block, part, *_ = part.modules()
        part.register_forward_hook(lambda *_, number=number: ran.append(number))
    here = model.on(tokens)
    assert torch.equal(here.clean, model.logits(tokens))
    assert ran == [0, 1, 0, 1]
    for scale in (0.0, 2.0, -1.0):
        change = lambda rows, scale=scale: rows * scale  # noqa: E731
        found = here.logits(change)
        assert ran == [0, 1, 0, 1]
        assert torch.equal(found, model.logits(tokens, change))
        del ran[4:]
    assert not torch.equal(found, here.clean)
    assert not any("forward" in vars(block) for block in model._early)


def test_a_model_that_hands_on_more_than_rows_is_run_as_a_whole(load, tokens):
    """Here a block remembers what the one two before it gave."""
    model = load("llama", layer=2)
    first, last = model._early[0], model._model.model.layers[2]
    memory = []
    first.register_forward_hook(lambda *_: memory.append(len(memory)))
    last.register_forward_hook(lambda _block, _inputs, output: output + 0.01 * len(memory))
    assert not model._is_same_from_the_site_on()
    model._early_can_be_kept = False
    memory.clear()
    here = model.on(tokens)
    here.logits(torch.zeros_like)
    assert len(memory) == 2


def test_the_first_block_has_none_before_it(load, tokens):
    model = load("llama", layer=0)
    here = model.on(tokens)
    assert torch.equal(here.logits(torch.zeros_like), model.logits(tokens, torch.zeros_like))


def test_sites_follow_each_other(load, tokens):
    """The output of block 1 is the input of block 2."""
    zeros = [
        load("llama", point, layer).logits(tokens, torch.zeros_like)
        for point, layer in (("resid_post", 1), ("resid_pre", 2))
    ]
    assert torch.equal(*zeros)


def test_the_last_block(load, saved, tokens):
    rows = torch.randn(2, 16, 32)
    whole = AutoModelForCausalLM.from_pretrained(saved("llama", 3)).eval()
    with torch.no_grad():
        expected = whole.lm_head(whole.model.norm(rows))
    found = load("llama", layer=2).logits(tokens, lambda _: rows)
    assert torch.allclose(found, expected, atol=1e-5)


def test_in_the_models_dtype(load, tokens):
    model, seen = load("gemma2", dtype=torch.bfloat16), []
    logits = model.logits(tokens, lambda rows: seen.append(rows.dtype) or rows)  # type: ignore[func-returns-value]
    assert {*seen, logits.dtype, model.dtype} == {torch.bfloat16}


def test_a_masked_model_is_refused(load):
    with pytest.raises(ModelError, match="depends on those behind it, as in a masked model"):
        load("bert")


def test_a_checkpoint_without_its_head_is_refused(saved, tmp_path):
    AutoModel.from_pretrained(saved("llama", 3)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"its checkpoint has no lm_head.weight, so nothing that"):
        SplicedModel.load(find_source(str(tmp_path)), Site(1), torch.float32, CPU)


def test_a_model_that_has_no_head_at_all_is_refused(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(vocab_size=50, hidden_size=32, intermediate_size=48)
    config.num_hidden_layers, config.num_attention_heads = 2, 4
    CLIPTextModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="offers AutoModelForCausalLM"):
        SplicedModel.load(find_source(str(tmp_path)), Site(1), torch.float32, CPU)


def test_a_place_that_nothing_comes_by_is_said(load, tokens):
    model = load("llama")
    block = model._model.model.layers[1]
    block._forward_hooks.clear()
    with pytest.raises(ModelError, match="nothing comes by at resid_post of layer 1"):
        model.logits(tokens, lambda rows: rows)
