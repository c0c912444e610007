"""The table and the picture of docs/results.md, from the runs that pipelines/smollm2.sh made.

python pipelines/results_table.py smollm2/runs docs/images/results.svg     (needs matplotlib)
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

COLUMNS = ("l0", "l0_eff", "explained_variance", "cosine", "dead", "mse", "decoder_cosine")


def main(runs: Path, picture: Path) -> None:
    """Print the table as Markdown and save the picture."""
    summaries = {
        path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/summary.json")
    }
    print("| run | steps | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, summary in sorted(summaries.items(), key=lambda item: -item[1]["cosine"]):
        figures = [f"{summary[column]:.3g}" for column in COLUMNS]
        print(f"| {name} | {summary['steps']} | " + " | ".join(figures) + " |")
    draw(runs, summaries, picture)


def draw(runs: Path, summaries: dict[str, Any], picture: Path) -> None:
    """Reconstruction against effective L0, and the paper run's course."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for name, summary in summaries.items():
        left.plot(summary["l0_eff"], summary["explained_variance"], "o")
        left.annotate(name, (summary["l0_eff"], summary["explained_variance"]), fontsize=8)
    left.set(xscale="log", xlabel="effective L0 (held out)", ylabel="explained variance (held out)")
    lines = [json.loads(line) for line in (runs / "paper/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    middle.plot(steps, [line["temperature"] for line in lines], label="temperature")
    middle.plot(steps, [line["utilisation"] for line in lines], label="utilisation (rho)")
    middle.set(xlabel="step", title="paper")
    middle.legend()
    right.plot(steps, [line["n_enabled"] for line in lines], label="enabled features")
    right.plot(steps, [line["l0"] for line in lines], label="L0 of the batch")
    right.set(xlabel="step", title="paper")
    right.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
