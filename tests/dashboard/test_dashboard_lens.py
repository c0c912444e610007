"""The logit lens against the final norm and the head, applied by hand."""

import pytest
import torch

from cpsae.config.extraction import Site
from cpsae.dashboard import lens as module
from cpsae.dashboard.lens import logit_lens
from cpsae.models import find_source
from cpsae.models.spliced import SplicedModel

BLOCKS = 26


@pytest.fixture(scope="module")
def model(gemma):
    site = Site(BLOCKS - 1, "resid_post")
    return SplicedModel.load(find_source(str(gemma)), site, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("rows", [3, 64])
def test_tokens_are_those_of_the_norm_and_the_head(gemma, model, monkeypatch, rows) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(module, "_ROWS", rows)
    directions = torch.randn(10, 32, generator=torch.manual_seed(0))
    found = logit_lens(model, directions, tokens=300, k=5)
    whole = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32)
    with torch.no_grad():
        logits = whole.lm_head(whole.model.norm(directions)) - whole.lm_head(
            whole.model.norm(torch.zeros(1, 32))
        )
    cap = whole.config.final_logit_softcapping
    logits = (torch.tanh(logits / cap) * cap if cap else logits)[:, :300]
    assert (found.up == logits.topk(5, dim=1).indices.numpy()).all()
    assert (found.down == (-logits).topk(5, dim=1).indices.numpy()).all()
    assert found.up_logits == pytest.approx(logits.topk(5, dim=1).values.numpy(), abs=1e-4)
    assert found.down_logits == pytest.approx(-(-logits).topk(5, dim=1).values.numpy(), abs=1e-4)
