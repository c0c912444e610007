"""Which families of language models cpsae cuts rightly: docs/model-families.md.

    python pipelines/model_families.py --json /tmp/families.json

For every causal, encoder and multi-modal family of the installed transformers: a small model with
random weights is made and saved, and blocks of cpsae's truncated model are compared with plain
hooks on that model itself, in memory, run whole. cpsae's own self-test is not part of it.
"""

import argparse
import gc
import json
import multiprocessing
import multiprocessing.connection
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from small_models import VOCABULARY, build, class_of, families
from torch import Tensor, nn
from transformers.utils import logging

from cpsae.errors import CpsaeError
from cpsae.models import TruncatedModel, describe, find_source, self_test

TABLE = Path(__file__).parent.parent / "docs" / "model-families.md"
SECONDS = 120
"""For one family."""
TOLERANCE = 1e-5
"""Largest difference, relative to the largest value."""
BATCH, LENGTH = 2, 12
LONGEST = 512
"""Longest context that is tried for its limit."""
TEXTS = (
    "encoder.language_model",
    "language_model",
    "model.language_model",
    "thinker.model",
    "text_model",
)
"""What transformers calls the text part of a multi-modal model."""
RESULTS = ("right", "refused", "wrong", "not built here")


@dataclass
class Row:
    """What came of one family."""

    family: str
    architecture: str
    result: str
    reason: str = ""
    seconds: float = 0.0


class NotBuilt(Exception):
    """No small model could be made, or it does not run on text by itself."""


def main() -> None:
    """Try the families that are named, or all, and write the table where all were tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--json", type=Path, help="write every row there too")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.families or families()
    torch.set_num_threads(1)
    rows = []
    for row in _all(names, arguments.processes):
        rows.append(row)
        print(f"{row.family}: {row.result} ({row.seconds:.1f} s) {row.reason}", flush=True)
    rows.sort(key=lambda row: row.family)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if not arguments.families:
        TABLE.write_text(_table(rows), encoding="utf-8")
    print(dict(Counter(row.result for row in rows)))
    sys.exit(any(row.result == "wrong" for row in rows))


def _all(names: list[str], processes: int) -> Iterator[Row]:
    """Each in a child of its own, so that neither a crash nor a hang ends the rest."""
    context = multiprocessing.get_context("fork")
    waiting = list(reversed(names))
    running: dict[str, tuple[Any, Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            name = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(name, theirs))
            child.start()
            theirs.close()
            running[name] = (child, ours, time.monotonic())
        multiprocessing.connection.wait([ours for _, ours, _ in running.values()], timeout=1)
        for name, (child, ours, began) in list(running.items()):
            spent = time.monotonic() - began
            if ours.poll():
                try:
                    row = ours.recv()
                except EOFError:
                    child.join()
                    row = Row(name, "", "not built here", f"its process ended ({child.exitcode})")
            elif spent > SECONDS:
                row = Row(name, "", "not built here", f"took over {SECONDS} s")
            else:
                continue
            child.kill()
            child.join()
            del running[name]
            row.seconds = spent
            yield row


def _child(name: str, answer: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        answer.send(_try(name, Path(folder)))


def _try(name: str, folder: Path) -> Row:
    row = Row(name, class_of(name), "not built here")
    try:
        model = build(name)
        model.save_pretrained(folder)
    except Exception as error:
        row.reason = _line(error)
        return row
    try:
        description = describe(find_source(str(folder)))
    except CpsaeError as error:
        row.result, row.reason = "refused", _line(error, folder)
        return row
    except Exception as error:
        row.result, row.reason = "wrong", f"a traceback: {_line(error, folder)}"
        return row
    try:
        expected, states = _by_hooks(model)
        limit = description.context_limit
        longest = _runs(model, limit) if limit is not None and limit <= LONGEST else ""
    except Exception as error:
        row.reason = _line(error)
        try:  # it may refuse for the same reason
            TruncatedModel.load(find_source(str(folder)), 0, torch.float32, torch.device("cpu"))
        except CpsaeError as refusal:
            row.result, row.reason = "refused", _line(refusal, folder)
        return row
    row.result, row.reason = _compare(folder, description.n_layers, expected, states)
    if row.result == "right" and longest:
        row.result, row.reason = "wrong", f"{limit} tokens do not run: {longest}"
    return row


@torch.no_grad()
def _runs(model: Any, length: int) -> str:
    """Why a context of this length does not run; "" if it does."""
    problem = ""
    for runs in (model, _text_model(model)):
        try:
            runs(input_ids=tokens(1, length))
        except Exception as error:
            problem = _line(error)
        else:
            return ""
    return problem


def _compare(
    folder: Path, n_layers: int, expected: list[Tensor], states: list[Tensor]
) -> tuple[str, str]:
    """The result and its reason. states: what transformers says are hidden states, if it does."""
    if len(expected) != n_layers:
        return "wrong", f"{len(expected)} blocks ran, cpsae finds {n_layers}"
    ran = [number for number, rows in enumerate(expected) if rows.numel()]
    skipped, last = [], 0.0
    for layer in sorted({0, n_layers // 2, n_layers - 1, *ran[:1], *ran[-1:]}):
        try:
            source = find_source(str(folder))
            model = TruncatedModel.load(source, layer, torch.float32, torch.device("cpu"))
            found = model.activations(tokens())
            self_test(model, source, tokens())
        except CpsaeError as error:
            if layer in ran:
                return "refused", _line(error, folder)
            skipped.append(layer)
            continue
        except Exception as error:
            return "wrong", f"layer {layer}: a traceback: {_line(error, folder)}"
        if layer not in ran:
            return "wrong", f"layer {layer} does not run on text, but gives rows"
        if found.shape != expected[layer].shape:
            return "wrong", f"layer {layer}: shape {tuple(found.shape)}"
        difference = _difference(found, expected[layer])
        last = max(last, difference)
        if not difference <= TOLERANCE:
            return "wrong", f"layer {layer}: differs by {difference:.1e}"
        known = [s for s in states if s.shape == found.shape]
        if layer < n_layers - 1 and known and min(_difference(found, s) for s in known) > TOLERANCE:
            return "wrong", f"layer {layer}: is none of the model's hidden states"
        del model
        gc.collect()
    reason = "bit for bit" if last == 0 else f"to {last:.0e}"
    if skipped:
        reason += f"; blocks {skipped} do not run on text, and are refused"
    return "right", reason


def _difference(found: Tensor, expected: Tensor) -> float:
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / largest if largest else float("inf")


def tokens(batch: int = BATCH, length: int = LENGTH) -> Tensor:
    """Contexts (batch, length) that hold no special token."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(8, VOCABULARY - 40, (batch, length), generator=generator)


@torch.no_grad()
def _by_hooks(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What each block of the text model gives (empty for one that did not run), and the model's
    own hidden states."""
    text = _text_model(model)
    blocks = _blocks(text)
    kept: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            rows = output[0] if isinstance(output, tuple | list) else output
            kept[number] = rows.detach().clone()

        return hook

    for number, block in enumerate(blocks):
        block.register_forward_hook(keep(number))
    states: Any = None
    for runs in (model, text):
        kept.clear()
        try:
            out = runs(input_ids=tokens(), output_hidden_states=True)
        except Exception as error:
            problem = error
            continue
        states = getattr(out, "hidden_states", None) or ()
        break
    else:
        raise NotBuilt(f"does not run on text: {_line(problem)}")
    if not kept:
        raise NotBuilt("no block runs on text")
    rows = [kept.get(number, torch.empty(0)) for number in range(len(blocks))]
    if all(r.shape[:2] != (BATCH, LENGTH) for r in kept.values()) and len(states) > len(blocks):
        rows = list(states[1:])  # blocks that run time first, or on padded contexts
    if not all(torch.isfinite(r).all() for r in rows):
        raise NotBuilt("random weights of this size give NaN or Inf")
    return rows, [s for s in states if isinstance(s, Tensor)]


def _text_model(model: Any) -> Any:
    """By the names that transformers gives it, from outside in."""
    base = getattr(model, model.base_model_prefix, model) if model.base_model_prefix else model
    for start in (model, base):
        for path in (
            "encoder.language_model",
            "language_model",
            "model.language_model",
            "thinker.model",
            "text_model",
        ):
            try:
                part = start.get_submodule(path)
            except AttributeError:
                continue
            inner = getattr(part, "model", None) or getattr(part, "transformer", None)
            return inner if isinstance(inner, nn.Module) else part
    return base


def _blocks(text: Any) -> nn.ModuleList:
    """The list of blocks: of those with a usual name the first from outside."""
    named = [
        (name.count("."), name, part)
        for name, part in text.named_modules()
        if isinstance(part, nn.ModuleList)
        and name.rpartition(".")[2] in ("layers", "layer", "h", "blocks", "block", "albert_layers")
    ]
    if not named:
        raise NotBuilt("no list of blocks with a usual name")
    return min(named, key=lambda found: found[0])[2]


def _line(error: BaseException, folder: Path | None = None) -> str:
    text = " ".join(str(error).split())
    if folder is not None:
        text = text.replace(str(folder), "FOLDER")
    if not isinstance(error, CpsaeError | NotBuilt):
        text = f"{type(error).__name__}: {text}"
    return text.replace("|", "/")[:240]


def _table(rows: list[Row]) -> str:
    counts = Counter(row.result for row in rows)
    tried = len(rows) - counts["not built here"]
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    lines = [
        "# Model families",
        "",
        "Made by `python pipelines/model_families.py`: of each family a small model with random",
        "weights, and the first, a middle and the last block of the truncated model against plain",
        "hooks on the whole one, float32 on a CPU.",
        "",
        f"{versions}. {len(rows)} families, {tried} tried:",
        f"{counts['right']} right, {counts['refused']} refused with one line,",
        f"{counts['wrong']} wrong; {counts['not built here']} not built here.",
        "",
        "| family | class | result | reason |",
        "|---|---|---|---|",
    ]
    for result in RESULTS:
        lines += [
            f"| {row.family} | {row.architecture} | {row.result} | {row.reason} |"
            for row in rows
            if row.result == result
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
