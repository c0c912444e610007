"""What tests of whole stages share: a tiny Gemma-2 with a tokenizer, and small corpora."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tiny import BLOCKS, LAYER, TOKENS, WORDS, gemma_config, texts

from cpsae.config import ExtractSettings

# A shell may start us in the background, with SIGINT ignored, and nohup ignores SIGHUP: the command
# respects that, and its tests begin like one in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tiny matrices: with several threads each would wait for the others most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """cpu, and cuda where there is a GPU: for tests of what runs on both."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return str(request.param)


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Gemma-2 of 26 blocks with random weights, and of its tokenizer; do not change."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("gemma")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(gemma_config(len(vocabulary), BLOCKS))
    with torch.no_grad():  # the norms too, which transformers starts at one
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .jsonl file of 400 documents, 28,000 tokens."""
    file = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    return file


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of source files."""
    folder = tmp_path_factory.mktemp("sources")
    for number, text in enumerate(texts(60, seed=1)):
        file = folder / f"package{number % 3}" / f"module{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "\n")
    return folder


@pytest.fixture
def settings(gemma: Path, corpus: Path, tmp_path: Path) -> Callable[..., ExtractSettings]:
    """settings(key=value, ...) of a small extraction into a folder of this test's own."""

    def make(**changes: object) -> ExtractSettings:
        values = {
            "model": str(gemma),
            "layer": LAYER,
            "tokens": TOKENS,
            "dataset": str(corpus),
            "vectors": 3000,
            "store": str(tmp_path / "acts.zarr"),
            "device": "cpu",
        }
        return ExtractSettings.model_validate({**values, **changes})

    return make


@pytest.fixture(scope="session")
def extract_arguments(gemma: Path, corpus: Path) -> Callable[[Path], list[str]]:
    """extract_arguments(store) gives the command line of the extraction of `settings`."""

    def make(store: Path) -> list[str]:
        return [
            *("extract", "--model", str(gemma), "--layer", str(LAYER), "--tokens", str(TOKENS)),
            *("--dataset", str(corpus), "--vectors", "3000", "--store", str(store)),
            *("--device", "cpu"),
        ]

    return make


@pytest.fixture(scope="session")
def cpsae() -> Run:
    """cpsae(*arguments, cwd=…, env=…) runs the command in a process of its own."""

    def run(
        *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "cpsae", *arguments],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
