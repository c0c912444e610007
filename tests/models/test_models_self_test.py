"""The check of the truncated model against the whole one."""

import importlib
import math

import pytest
import torch

from cpsae.config.extraction import Site
from cpsae.errors import ModelError, NonFiniteError
from cpsae.models import TruncatedModel, find_source, self_test

self_test_module = importlib.import_module("cpsae.models.self_test")
CPU = torch.device("cpu")


@pytest.mark.parametrize(("kind", "layer"), [("gemma2", 19), ("gemma2", 25), ("bert", 1)])
def test_equal_models_pass(saved, tokens, kind, layer) -> None:
    source = find_source(str(saved(kind, 26 if kind == "gemma2" else 4)))
    truncated = TruncatedModel.load(source, layer, torch.bfloat16, CPU)
    result = self_test(truncated, source, tokens)
    assert result.bit_equal and result.largest_difference == 0
    norms = truncated.activations(tokens).float().norm(dim=-1)
    assert result.median_norm == pytest.approx(float(norms[:, 1:].median()))
    assert result.first_ratio == pytest.approx(result.first_norm / result.median_norm)
    assert result.n_outliers == 0


def test_one_context_without_a_batch_dimension(saved, tokens) -> None:
    source = find_source(str(saved("llama", 4)))
    truncated = TruncatedModel.load(source, 1, torch.float32, CPU)
    assert self_test(truncated, source, tokens[0]).bit_equal


def test_a_wrong_cut_is_refused(saved, tokens) -> None:
    source = find_source(str(saved("llama", 4)))
    truncated = TruncatedModel.load(source, 1, torch.float32, CPU)
    # now it is compared with the next block's output
    truncated._taps = {Site(2): truncated._taps[Site(1)]}
    truncated.sites = [Site(2)]
    with pytest.raises(ModelError, match="layer 2 of .* differs from the whole one"):
        self_test(truncated, source, tokens)


def test_nan_names_the_layer(saved, tokens) -> None:
    source = find_source(str(saved("llama", 4)))
    truncated = TruncatedModel.load(source, 1, torch.float32, CPU)
    with torch.no_grad():
        next(iter(truncated._model.parameters()))[tokens[0, 3]] = math.nan
    with pytest.raises(NonFiniteError, match="layer 1 of .*NaN or Inf at .* of 32 positions"):
        self_test(truncated, source, tokens)


@pytest.mark.parametrize("which", ["truncated", "whole"])
def test_what_a_first_pass_raises_is_one_line(saved, which, monkeypatch) -> None:
    """Contexts that are too long for the tables of GPT-2."""
    source = find_source(str(saved("gpt2", 4)))
    truncated = TruncatedModel.load(source, 1, torch.float32, CPU)
    context = torch.arange(65)[None] % 60
    if which == "whole":
        rows = torch.ones(1, 65, truncated.d)
        monkeypatch.setattr(truncated, "rows", lambda _: {Site(1): rows})
    doing = {"truncated": "running its first blocks", "whole": "running the whole model"}[which]
    with pytest.raises(ModelError, match=f"model .*{doing} failed .*IndexError") as caught:
        self_test(truncated, source, context)
    assert "\n" not in str(caught.value)


def test_a_block_that_runs_twice_is_refused(saved, tokens, monkeypatch) -> None:
    """The truncated model stops where it has run once."""
    source = find_source(str(saved("llama", 4)))
    truncated = TruncatedModel.load(source, 1, torch.float32, CPU)
    load = self_test_module.load_base_model

    def looped(*arguments, **options):
        model, missing = load(*arguments, **options)
        model.layers[3] = model.layers[1]
        return model, missing

    monkeypatch.setattr(self_test_module, "load_base_model", looped)
    with pytest.raises(ModelError, match="layer 1 of .*: this block runs 2 times a pass"):
        self_test(truncated, source, tokens)
