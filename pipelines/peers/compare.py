"""cpsae's kinds against the same ones of SAELens and dictionary_learning, on the same batches.

    python pipelines/peers/compare.py STORE --kinds topk,batchtopk,relu --out DIR

Each kind that all three have (and this cpsae has) is trained by each library's own trainer, by
default 1,000 steps of 1,024 rows, n = 2 d, three seeds; what steers L0 is swept where that is not
the number of latents itself. One evaluator in float64 measures all on the store's held-out rows.
DIR has a file for each run, so that the same command continues; DIR/table.md is of all of them.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from equal_l0 import ExplainedVariance, at_l0, keep_of_batch, keep_of_row
from libraries import LIBRARIES, STEERED_BY, Data, Task, Trained, train_cpsae

import cpsae
from cpsae.config.resolve import parse_assignments
from cpsae.json_files import write_object
from cpsae.sae.kinds import kind_names
from cpsae.store.bound import norm_bound
from cpsae.tensors import tensor_of

Train = Callable[[Task, Data, Path], Trained]
BATCH = 1024
"""Held-out rows at a time: what batch top-k chooses from."""


def read(path: Path) -> Data:
    """The store and the scales of its training rows."""
    store = cpsae.open_store(path)
    bound = float(norm_bound(store.training, 10))
    square, norm, rows = 0.0, 0.0, 0
    for chunk in store.training.chunks:
        norms = store.training.norms(chunk).astype("f8")
        norms = norms[norms <= bound]
        square, norm, rows = square + (norms**2).sum(), norm + norms.sum(), rows + len(norms)
    return Data(store, bound, math.sqrt(square / rows), norm / rows / math.sqrt(store.d))


@torch.no_grad()
def measure(trained: Trained, task: Task, data: Data, l0: int) -> dict[str, float]:
    """At its own rule of inference, and, for kinds that choose k latents, at just that many."""
    own, chosen = ExplainedVariance(), ExplainedVariance()
    keep = {"topk": keep_of_row, "batchtopk": keep_of_batch}.get(task.kind)
    assert data.store.evaluation is not None, "a store without held-out rows measures nothing"
    for rows in data.store.evaluation.batches(BATCH):
        x_BD = tensor_of(rows).float()
        x_BD = x_BD[x_BD.norm(dim=1) <= data.bound] / trained.scale
        a_BN = trained.encode(x_BD)
        own.update(x_BD, trained.decode(a_BN), a_BN)
        if keep is not None:
            a_BN = keep(trained.raw(x_BD), l0)
            chosen.update(x_BD, trained.decode(a_BN), a_BN)
    found = dict(zip(("own_l0", "own_explained_variance"), own.result(), strict=True))
    if keep is not None:
        found |= dict(zip(("l0", "explained_variance"), chosen.result(), strict=True))
    return found


def run(library: str, train: Train, task: Task, data: Data, l0: int, out: Path) -> None:
    """One run, unless its file is there."""
    name = f"{library}-{task.kind}-{task.value:g}-seed-{task.seed}"
    file = out / "runs" / f"{name}.json"
    if file.exists():
        return
    began = time.monotonic()
    trained = train(task, data, out / "cpsae" / name)
    seconds = time.monotonic() - began
    found: dict[str, Any] = {"library": library, **vars(task), "seconds": round(seconds, 1)}
    found |= measure(trained, task, data, l0)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_object(file, found)
    print(f"{name}: {found}", flush=True)


def equal(runs: Sequence[dict[str, Any]], l0: int) -> list[float]:
    """Explained variance at this L0, one for each seed for which it can be said."""
    values = []
    for seed in sorted({one["seed"] for one in runs}):
        own = [one for one in runs if one["seed"] == seed]
        exact = [one["explained_variance"] for one in own if "explained_variance" in one]
        points = [(one["own_l0"], one["own_explained_variance"]) for one in own]
        value = exact[0] if exact else at_l0(points, l0)
        values += [] if value is None else [value]
    return values


def table(runs: Sequence[dict[str, Any]], l0: int) -> str:
    """Markdown: a row a kind and library, mean over seeds and half the range."""
    lines = [
        f"| kind | library | seeds | explained variance at L0 = {l0} | own L0 | seconds a run |",
        "|---" * 6 + "|",
    ]
    for kind in STEERED_BY:
        for library in dict.fromkeys(one["library"] for one in runs):
            own = [r for r in runs if r["kind"] == kind and r["library"] == library]
            values = equal(own, l0)
            if not own:
                continue
            half = (max(values) - min(values)) / 2 if values else math.nan
            middle = math.fsum(values) / len(values) if values else math.nan
            l0s = [r["own_l0"] for r in own]
            seconds = math.fsum(r["seconds"] for r in own) / len(own)
            lines.append(
                f"| {kind} | {library} | {len(values)} | {middle:.4f} ± {half:.4f} | "
                f"{min(l0s):.1f} to {max(l0s):.1f} | {seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"


def values_of(kind: str, l0: int, l1s: Sequence[float]) -> list[float]:
    """What steers L0: k itself, a few weights of the L1, or a target on either side."""
    if kind == "relu":
        return list(l1s)
    return [l0] if STEERED_BY[kind] == "k" else [0.7 * l0, 1.4 * l0]


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--kinds", default=",".join(STEERED_BY))
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    text = "cpsae once more, with this setting; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--l0", type=int, default=32)
    parser.add_argument("--l1s", default="0.05,0.1,0.2", help="swept for relu")
    parser.add_argument("--n", type=int, help="by default 2 d")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    data = read(asked.store)
    n, l1s = asked.n or 2 * data.store.d, [float(text) for text in asked.l1s.split(",")]
    libraries = {name: LIBRARIES[name] for name in asked.libraries.split(",")}
    if asked.set:
        own = parse_assignments(asked.set)
        libraries[" ".join(["cpsae", *asked.set])] = partial(train_cpsae, own=own)
    kinds = [kind for kind in asked.kinds.split(",") if kind in kind_names()]
    for seed in map(int, asked.seeds.split(",")):
        for kind in kinds:
            for library, train in libraries.items():
                for value in values_of(kind, asked.l0, l1s):
                    task = Task(kind, value, seed, n, asked.steps, asked.batch)
                    run(library, train, task, data, asked.l0, asked.out)
    runs = [json.loads(path.read_text()) for path in sorted((asked.out / "runs").glob("*.json"))]
    write_object(asked.out / "results.json", {"l0": asked.l0, "runs": runs})
    text = table(runs, asked.l0)
    (asked.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
