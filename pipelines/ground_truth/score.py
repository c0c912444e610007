"""Measure runs on a world against its true features.

    python pipelines/ground_truth/score.py WORLD DIR

Scores every finished run below DIR (what train.py made), writes DIR/truth.json and DIR/truth.md,
and prints the table: means over the seeds of each setting, with half the range behind them.
Needs scipy. With --saelens the same comes from SAELens' own functions, and any difference is an
error.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from truth import Detection, Truth, cosines, mcc, uniqueness

import cpsae
from cpsae.json_files import write_object
from cpsae.store import Store
from cpsae.tensors import tensor_of

COLUMNS = ("l0", "explained_variance", "mcc", "f1", "precision", "recall", "uniqueness", "dead")
BATCH = 2048


def batches(
    sae: cpsae.SparseAutoencoder, store: Store, truth: Truth
) -> Iterator[tuple[Tensor, ...]]:
    """x (B, D), its latents (B, N) and which features are on (B, F), of all held-out rows."""
    assert store.evaluation is not None, "generate.py holds rows out"
    first = 0
    for rows in store.evaluation.batches(BATCH):
        x_BD = tensor_of(rows).float()
        yield x_BD, sae.encode(x_BD), truth.fires(first, len(rows))
        first += len(rows)


@torch.no_grad()
def score(run: Path, store: Store, truth: Truth) -> dict[str, Any]:
    """The measures of one run."""
    sae = cpsae.load(run)
    cosines_NF = cosines(sae.W_dec, truth.directions_FD)
    detection = Detection(cosines_NF)
    for _, a_BN, on_BF in batches(sae, store, truth):
        detection.update(a_BN, on_BF)
    summary = json.loads((run / "summary.json").read_text())
    return {
        "run": run.name,
        "setting": run.parent.name,
        "n": sae.n_latents,
        **{key: summary[key] for key in ("steps", "explained_variance", "decoder_cosine")},
        "mcc": mcc(cosines_NF),
        "uniqueness": uniqueness(cosines_NF),
        **detection.result(),
    }


@torch.no_grad()
def refuse_other_than_saelens(run: Path, store: Store, truth: Truth, ours: dict[str, Any]) -> None:
    """Raises ValueError where SAELens' own functions give something else."""
    from sae_lens.synthetic import (
        ClassificationMetricsCalculator,
        DeadLatentsCalculator,
        L0Calculator,
        feature_uniqueness,
        mean_correlation_coefficient,
    )

    sae = cpsae.load(run)
    both = sae.W_dec, truth.directions_FD
    detection, l0 = ClassificationMetricsCalculator(*both), L0Calculator()
    dead = DeadLatentsCalculator(sae.n_latents)
    for _, a_BN, on_BF in batches(sae, store, truth):
        detection.add_batch(a_BN, on_BF.float())
        l0.add_batch(a_BN)
        dead.add_batch(a_BN)
    found = detection.compute()
    theirs = {
        "mcc": mean_correlation_coefficient(*both),
        "uniqueness": feature_uniqueness(*both),
        "f1": found.f1_score,
        "precision": found.precision,
        "recall": found.recall,
        "l0": l0.compute(),
        "dead": dead.compute(),
    }
    for key, value in theirs.items():
        if not math.isclose(value, ours[key], rel_tol=1e-4, abs_tol=1e-5):
            raise ValueError(f"{run}: {key} is {ours[key]}, SAELens finds {value}")


def table(scores: list[dict[str, Any]], true_l0: float) -> str:
    """Markdown: a row a setting, the best F1 first."""
    settings: dict[str, list[dict[str, Any]]] = {}
    for one in scores:
        settings.setdefault(one["setting"], []).append(one)
    lines = [
        f"True L0: {true_l0:.1f}.",
        "",
        "| setting | n | steps | seeds | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for name, runs in sorted(settings.items(), key=lambda item: -_mean(item[1], "f1")):
        cells = [_cell(runs, column) for column in COLUMNS]
        head = [name, str(runs[0]["n"]), str(runs[0]["steps"]), str(len(runs))]
        lines.append("| " + " | ".join(head + cells) + " |")
    return "\n".join(lines) + "\n"


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return math.fsum(run[key] for run in runs) / len(runs)


def _cell(runs: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs]
    digits = {"l0": 1, "dead": 0}.get(key, 3)
    half = (max(values) - min(values)) / 2
    spread = f" ± {half:.{digits}f}" if len(values) > 1 else ""
    return f"{_mean(runs, key):.{digits}f}{spread}"


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path, help="a folder that generate.py made")
    parser.add_argument("runs", type=Path, help="a folder that train.py made")
    parser.add_argument("--saelens", action="store_true", help="check against SAELens")
    asked = parser.parse_args()
    store, truth = cpsae.open_store(asked.world / "store.zarr"), Truth.load(asked.world)
    scores = []
    for summary in sorted(asked.runs.rglob("summary.json")):
        scores.append(score(summary.parent, store, truth))
        if asked.saelens:
            refuse_other_than_saelens(summary.parent, store, truth, scores[-1])
    write_object(asked.runs / "truth.json", {"true_l0": truth.l0, "runs": scores})
    text = table(scores, truth.l0)
    (asked.runs / "truth.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
