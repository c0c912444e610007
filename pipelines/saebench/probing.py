"""k-sparse probing of a cpsae run, as SAEBench does it with sae-probes.

    python pipelines/saebench/probing.py RUN --model FOLDER|NAME [--datasets NAME,NAME]

The data sets come with the package sae-probes; without --datasets all of them are taken. Prints
accuracy and AUC of logistic regression on the k best latents, and on the model's own vectors.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
from sae_bench.evals.sparse_probing_sae_probes.main import run_eval
from sae_probes import DATASETS
from wrapped import WrappedRun, enter_beside

KS = (1, 2, 5, 16, 64)


def table(result: dict[str, Any], ks: tuple[int, ...]) -> str:
    """Markdown: means over the data sets."""
    found = result["eval_result_metrics"]
    lines = ["| k | accuracy | AUC |", "|---|---|---|"]
    by_k = result["sae_metrics_by_k"]
    for k in ks:
        lines.append(f"| {k} | {by_k[k]['test_accuracy']:.4f} | {by_k[k]['test_auc']:.4f} |")
    llm = found["llm"]
    lines.append(f"| all of x | {llm['llm_test_accuracy']:.4f} | {llm['llm_test_auc']:.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Probe, save, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", required=True, help="a folder or a name of TransformerLens")
    parser.add_argument("--datasets", help="like 119_us_state_TX,125_world_country_Italy")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("saebench-probing"))
    asked = parser.parse_args()
    run, out = asked.run.resolve(), asked.out.resolve()
    name = enter_beside(asked.model)
    config = SparseProbingSaeProbesEvalConfig(
        model_name=name,
        dataset_names=asked.datasets.split(",") if asked.datasets else [*DATASETS],
        ks=list(KS),
        results_path=str(out / "sae-probes"),
        model_cache_path=str(out / "activations"),
    )
    sae = WrappedRun(run, name, asked.device)
    results = run_eval(config, [(run.name, sae)], asked.device, str(out), force_rerun=True)
    [result] = results.values()
    print(f"{len(config.dataset_names)} data sets\n\n{table(result, KS)}")


if __name__ == "__main__":
    main()
