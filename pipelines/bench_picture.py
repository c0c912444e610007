"""Draw what `cpsae bench fit --json` found: one panel a shape, one bar a trainer.

python -m cpsae bench fit --json > bench.json
python pipelines/bench_picture.py bench.json docs/images/bench.svg
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, OTHERS = "#1f77b4", "#b0b0b0"


def draw(tables: list[dict[str, Any]], out: Path) -> None:
    """Bars of the ratio to the floor, which is a line at 1."""
    figure = Figure(figsize=(9, 0.6 + 0.32 * max(len(table["lines"]) for table in tables)))
    for number, table in enumerate(tables):
        _panel(figure.add_subplot(1, len(tables), number + 1), table)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def _panel(axes: Axes, table: dict[str, Any]) -> None:
    lines = [line for line in table["lines"] if line["name"] != table["floor"]][::-1]
    names = [line["name"] for line in lines]
    middle = [line["of_floor"] for line in lines]
    spread = [
        [line["of_floor"] - line["lowest"] for line in lines],
        [line["highest"] - line["of_floor"] for line in lines],
    ]
    colours = [OURS if name.startswith("cpsae") else OTHERS for name in names]
    axes.barh(names, middle, xerr=spread, color=colours, error_kw={"linewidth": 0.8})
    for place, value in enumerate(middle):
        axes.text(0.03, place, f"{value:.2f}", va="center", fontsize=7, color="white")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.tick_params(labelsize=8)
    setting = table["setting"]
    axes.set_title(f"d = {setting['d']:,}, n = {setting['n']:,}", fontsize=9)
    axes.set_xlabel(f"rate of updates, of {table['floor']} alone", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["tables"], Path(sys.argv[2]))
