"""What a GPU makes of both stages, in one command: tests on it, gemma-2-2b's shape, a fit.

    python pipelines/gpu_figures.py --out gpu.json [--only tests,extract,updates,fit] [--small]

- tests: those that take a device, on the GPU.
- extract: a model of gemma-2-2b's shape with random weights, layer 19, on Python's own library;
  `cpsae bench extract`, its rate, its share of the device's measured peak, the time of 10M vectors.
- updates: `cpsae bench fit` at d = n = 2304, other libraries too where installed.
- fit: whole fits of the paper's shape, by difference of two lengths, from a store of random rows.

The peak is what one large product does, in bfloat16 on a GPU. `--small` is a try on a CPU, of two
minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

import cpsae
from cpsae.bench.side_by_side import stopwatch
from cpsae.demo.corpus import write_corpus
from cpsae.demo.run import MODEL
from cpsae.device import choose_device, choose_dtype
from cpsae.sae.kinds import kind_names

PAPER_VECTORS, PAPER_STEPS = 10_000_000, 4882
PRODUCTS = 5
"""Of an update."""
_BLOCK = 4000
"""Rows of a store that are made at a time."""


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    model: dict[str, int]
    """Settings of the model that are not gemma-2-2b's."""
    layer: int
    vectors: int
    d: int
    batch: int
    rows: int
    """Of the store that is fitted."""
    steps: tuple[int, int]
    product: int
    """Side of the matrices that the peak is measured with."""


LARGE = Size({}, 19, 400_000, 2304, 2048, 1_000_000, (200, 1200), 8192)
SMALL = Size(
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "head_dim": 16},
    *(1, 2000, 64, 64, 4000, (50, 250), 256),
)


def main() -> None:
    """Prints each part as it is there, and writes all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="tests,extract,updates,fit")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    device, size = choose_device(args.device), SMALL if args.small else LARGE
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "small": args.small}
    parts: dict[str, Callable[[torch.device, Size, Path], dict[str, Any]]] = {
        "tests": tests,
        "extract": extract,
        "updates": updates,
        "fit": fit,
    }
    with tempfile.TemporaryDirectory(prefix="gpu-figures-") as place:
        for part in args.only.split(","):
            found[part] = parts[part](device, size, Path(place))
            print(json.dumps({part: found[part]}, indent=2), flush=True)
            args.out.write_text(json.dumps(found, indent=2) + "\n")


def tests(device: torch.device, _size: Size, _place: Path) -> dict[str, Any]:
    """The tests that take a device."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", device.type, "-p", "no:cacheprovider"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return {"passed": done.returncode == 0, "said": done.stdout.strip().splitlines()[-12:]}


def extract(device: torch.device, size: Size, place: Path) -> dict[str, Any]:
    """Tokens a second, and what share of the peak that is."""
    config = Gemma2Config(**size.model)
    model, text = place / "gemma", write_corpus(place / "library.jsonl")
    with torch.device(device):
        Gemma2ForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(model)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(model)
    line = _bench(
        *("extract", "--model", model, "--dataset", text, "--layer", size.layer),
        *("--vectors", size.vectors, "--device", device, "--rounds", 3),
    )["cpsae extract"]
    tokens = line["rate"] * 128 / 127  # the first position of each context is left out
    flops = tokens * (size.layer + 1) * _flops_a_token(config)
    peak = _peak(device, size.product)
    return {
        "tokens a second": tokens,
        "of the bare forward pass": line["of_floor"],
        "TFLOP/s": flops / 1e12,
        "of the peak": flops / peak,
        "seconds for the paper's vectors": PAPER_VECTORS / line["rate"],
    }


def updates(device: torch.device, size: Size, _place: Path) -> dict[str, Any]:
    """Vectors a second of bare updates: ours, and other libraries' where they are installed."""
    shape = f"{size.d}x{size.d}"
    table = _bench("fit", "--shape", shape, "--batch-size", size.batch, "--device", device)
    return {name: _trained(line["rate"], device, size) for name, line in table.items()}


def fit(device: torch.device, size: Size, place: Path) -> dict[str, Any]:
    """Vectors a second of whole fits, feed, figures and log included."""
    store, clock = place / "acts.zarr", stopwatch(device)
    cpsae.write_store(store, _rows(size), next(_rows(size)))
    found = {}
    for kind in ("paper", *kind_names()):
        seconds = []
        for number, steps in enumerate((size.steps[0], *size.steps)):  # the first warms it up
            train = partial(cpsae.fit, store, out=place / f"{kind}-{number}", preset=kind)
            lengths = {"steps": steps, "batch_size": size.batch, "checkpoint_every": 10**6}
            seconds.append(clock(partial(train, device=str(device), progress=False, **lengths)))
        trained = (size.steps[1] - size.steps[0]) * size.batch
        found[kind] = _trained(trained / (seconds[2] - seconds[1]), device, size)
    return found


def _rows(size: Size) -> Iterator[npt.NDArray[Any]]:
    """Random ones, a block at a time."""
    random = np.random.default_rng(0)
    for _ in range(0, size.rows, _BLOCK):
        yield random.standard_normal((_BLOCK, size.d), np.float32).astype(ml_dtypes.bfloat16)


def _trained(rate: float, device: torch.device, size: Size) -> dict[str, float]:
    flops = rate * PRODUCTS * 2 * size.d * size.d
    return {
        "vectors a second": rate,
        "of the peak": flops / _peak(device, size.product),
        "seconds for the paper's steps": PAPER_STEPS * size.batch / rate,
    }


def _flops_a_token(config: Gemma2Config) -> int:
    """Of a block's matrices; attention's own products are a hundredth of them at 128 tokens."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    attention = config.hidden_size * config.head_dim * heads
    return int(2 * (attention + 3 * config.hidden_size * config.intermediate_size))


def _peak(device: torch.device, side: int) -> float:
    """FLOP/s of the best of six products, in what models and updates compute in there."""
    dtype = choose_dtype("auto", device)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(_wall(device, lambda: a @ b) for _ in range(6))
    return 2 * side**3 / best


def _wall(device: torch.device, call: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _bench(*arguments: object) -> dict[str, Any]:
    """The lines of `cpsae bench`, by name."""
    command = [sys.executable, "-m", "cpsae", "bench", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    [table] = json.loads(done.stdout)["tables"]
    return {line["name"]: line for line in table["lines"]}


if __name__ == "__main__":
    main()
