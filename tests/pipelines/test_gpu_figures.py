"""pipelines/gpu_figures.py, as far as a CPU can try it."""

import json
import sys

import gpu_figures
from transformers import Gemma2Config, Gemma2ForCausalLM


def test_flops_are_those_of_the_weights() -> None:
    config = Gemma2Config(**gpu_figures.SMALL.model, vocab_size=10)
    block = Gemma2ForCausalLM(config).model.layers[0]
    weights = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    assert gpu_figures._flops_a_token(config) == 2 * weights
    assert gpu_figures._flops_a_token(Gemma2Config()) * 20 / 1e9 == 3.114270720


def test_it_writes_what_it_found(tmp_path, monkeypatch) -> None:
    out = tmp_path / "gpu.json"
    options = ["--small", "--device", "cpu", "--only", "extract,updates", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu_figures.py", *options])
    gpu_figures.main()
    found = json.loads(out.read_text())
    assert {"tokens a second", "of the peak"} <= found["extract"].keys()
    assert {"five products", "cpsae paper", "cpsae topk"} <= found["updates"].keys()
