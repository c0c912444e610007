"""Why Eq. 5 does what it does: how much of the softmax a row's largest feature takes, how many
features carry the reconstruction, and T over training.

    python pipelines/competition_figures.py competition.svg runs/paper runs/baseline

Measured on the held-out rows that count of each run's own store. Prints the table, and writes it as
JSON beside the picture. Names: B rows, D dimensions, M enabled features, f encoder outputs, a
latents.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from course import read_log
from torch import Tensor

from cpsae.durable import write_atomic
from cpsae.errors import CpsaeError, RunError
from cpsae.evaluation.rows import SLICE_ROWS, held_out_part
from cpsae.json_files import write_object
from cpsae.reporting.picture import as_bytes, look, own_style
from cpsae.reporting.runs import distinct_names
from cpsae.reporting.table import markdown
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.stages.found_runs import find_runs
from cpsae.stages.load import load
from cpsae.store import open_store
from cpsae.tensors import tensor_of
from cpsae.training.run_folder import RunFolder

CARRIED = 0.9
COLUMNS = ("active", "largest_share", "lead", "carriers", "temperature")

Values = npt.NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 with one line that says what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="a .svg or .png")
    parser.add_argument("runs", nargs="+", type=Path, help="runs, or folders that runs are in")
    options = parser.parse_args(arguments)
    try:
        paths = find_runs(options.runs)
        found = dict(zip(distinct_names(paths), map(competition_of, paths), strict=True))
        tables = {name: each.figures() for name, each in found.items()}
        write_object(options.picture.with_suffix(".json"), tables)
        write_atomic(options.picture, drawn(found, options.picture.suffix.removeprefix(".")))
    except CpsaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_markdown(tables))
    return 0


@dataclass(frozen=True)
class Competition:
    """Of each row of a run, one value; and the course of T."""

    active: Values
    """How many f are above 0."""
    largest_share: Values | None
    """The softmax's largest value, 0 where nothing fired; None where there is no softmax."""
    lead: Values | None
    """By how much the largest f is above the second largest, in units of T."""
    carriers: Values
    """How many features carry 90 % of the reconstruction's energy."""
    curve: Values
    """(M,) the mean share of the energy that the 1, 2, … largest contributions carry."""
    course: list[tuple[int, float]]
    """Steps and T."""

    def figures(self) -> dict[str, float | None]:
        """Means over rows; medians of the lead and the carriers, which have long tails; T as it
        was at the end."""
        share, lead = self.largest_share, self.lead
        return {
            "active": float(self.active.mean()),
            "largest_share": None if share is None else float(share.mean()),
            "lead": None if lead is None else float(np.median(lead)),
            "carriers": float(np.median(self.carriers)),
            "temperature": self.course[-1][1] if self.course else None,
        }


def competition_of(run: Path) -> Competition:
    """Measure a finished run on its own store. Raises CpsaeError."""
    sae, folder = load(run), RunFolder(run)
    part = held_out_part(open_store(folder.read_config()["store"]["path"]))
    bound = np.float64(folder.facts().norm_bound)
    pieces = []
    for chunk in part.chunks:
        rows = part.rows(chunk)[part.norms(chunk) <= bound]
        pieces += [
            measured(sae, tensor_of(rows[start : start + SLICE_ROWS]))
            for start in range(0, len(rows), SLICE_ROWS)
        ]
    if not pieces:
        raise RunError(f"{run}: its store has no held-out row that counts")
    values = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    arrays = {name: value.double().numpy() for name, value in values.items()}
    log = read_log(folder.metrics)
    return Competition(
        active=arrays["active"],
        largest_share=arrays.get("largest_share"),
        lead=arrays.get("lead"),
        carriers=arrays["carriers"],
        curve=arrays["curve"].mean(0),
        course=[(line["step"], t) for line in log if (t := line.get("temperature")) is not None],
    )


@torch.no_grad()
def measured(sae: SparseAutoencoder, x_BD: Tensor) -> dict[str, Tensor]:
    """Each figure of raw rows: (B,), and `curve` (B, M)."""
    latents = sae.latents(x_BD)
    f, a = latents.raw.double(), latents.competed.double()
    curve = energy_curve(a, sae.W_dec[: sae.n_enabled].double())
    found = {
        "active": (f > 0).sum(1),
        # of a row on which nothing fired, 0
        "carriers": (curve[:, -1] > 0) * (1 + (curve < CARRIED).cumprod(1).sum(1)),
        "curve": curve,
    }
    if "temperature" in sae.kind.tensors:
        temperature = sae.kind.tensors["temperature"]
        first, second = f.topk(2, dim=1).values.unbind(1)
        found["largest_share"] = a.amax(1) / first.clamp_min(torch.finfo(first.dtype).tiny)
        found["lead"] = (first - second) / temperature
    return found


def energy_curve(a_BM: Tensor, w_dec_MD: Tensor) -> Tensor:
    """(B, M): which share of ||sum_i a_i d_i||^2 the 1, 2, … largest contributions carry, where
    feature i contributes a_i <d_i, sum_j a_j d_j>: these add up to the whole, though features are
    not orthogonal. A contribution may be below 0, so that shares before the last may be above 1."""
    without_bias = a_BM @ w_dec_MD
    contributions = a_BM * (without_bias @ w_dec_MD.T)
    sums = contributions.sort(dim=1, descending=True).values.cumsum(1)
    return sums / sums[:, -1:].clamp_min(torch.finfo(sums.dtype).tiny)


def as_markdown(tables: Mapping[str, Mapping[str, float | None]]) -> str:
    """A row a run."""
    rows = [
        [name, *("" if (v := figures[key]) is None else f"{v:.4g}" for key in COLUMNS)]
        for name, figures in tables.items()
    ]
    return markdown(["run", *COLUMNS], rows)


def drawn(found: Mapping[str, Competition], file_format: str) -> bytes:
    """T over training, the rows' largest shares, and who carries the reconstruction."""
    from matplotlib.figure import Figure

    with own_style():
        height = 3.2 + 0.19 * -(-len(found) // 3)
        figure = Figure(figsize=(10, height), dpi=100, layout="constrained")
        course, shares, carried = figure.subplots(1, 3)
        course.set(xlabel="step", ylabel="temperature T")
        shares.set(xlabel="largest share of the softmax", ylabel="share of rows below")
        carried.set(xlabel="largest features of a row", ylabel="share of the energy", xscale="log")
        for number, (name, each) in enumerate(found.items()):
            line: dict[str, Any] = {**look(number), "marker": "", "label": name}
            carried.plot(1 + np.arange(len(each.curve)), each.curve, **line)
            if each.course:
                course.plot(*zip(*each.course, strict=True), **line)
            if each.largest_share is not None:
                shares.plot(np.quantile(each.largest_share, _PARTS), _PARTS, **line)
        course.set_ylim(bottom=0)
        carried.xaxis.set_major_formatter("{x:g}")
        figure.legend(*carried.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return as_bytes(figure, file_format)


_PARTS = np.linspace(0, 1, 201)


if __name__ == "__main__":
    sys.exit(main())
