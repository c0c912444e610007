"""How runs went: temperature, utilisation, enabled features and L0 over training.

python pipelines/course.py course.svg runs/paper runs/baseline
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpsae.durable import write_atomic
from cpsae.reporting.picture import as_bytes, look, own_style

PANELS = {
    "temperature": "temperature T",
    "utilisation": "utilisation rho",
    "n_enabled": "enabled features",
    "l0": "L0 of the batch",
}


def draw_course(runs: Mapping[str, Path], picture: Path) -> None:
    """Draw the metrics.jsonl of runs, by the names to show, into a .svg or .png."""
    from matplotlib.figure import Figure

    logs = {name: read_log(path / "metrics.jsonl") for name, path in runs.items()}
    with own_style():
        height = 5.2 + 0.19 * -(-len(logs) // 2)
        figure = Figure(figsize=(8, height), dpi=100, layout="constrained")
        for axes, (key, label) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            axes.set(xlabel="step", ylabel=label)
            for number, (name, lines) in enumerate(logs.items()):
                points = [(line["step"], line[key]) for line in lines if line[key] is not None]
                steps, values = zip(*points, strict=True) if points else ((), ())
                axes.plot(steps, values, label=name, **{**look(number), "marker": ""})
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
        write_atomic(picture, as_bytes(figure, picture.suffix.removeprefix(".")))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; the last may be half written at this moment."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]]
    draw_course({str(run): run for run in named[1:]}, named[0])
