"""What the paper's own row implies, from its two rows trained on vectors scaled by one number.

    cpsae fit --preset baseline --set normalize=unit --out runs/baseline
    cpsae fit --preset paper --set normalize=unit --out runs/paper
    python pipelines/paper_row.py runs/baseline runs/paper --out paper_row.json

Each run is measured as it was trained; then the paper's weights once more with raw vectors put in,
as an autoencoder is often scaled back after training: its biases times the run's scale, the
temperature left as it is, and scaled too. All on the store's held-out rows that count.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpsae.errors import CpsaeError, RunError
from cpsae.evaluation.held_out import measure
from cpsae.evaluation.rows import held_out_part
from cpsae.json_files import write_object
from cpsae.reporting.table import markdown
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.normalization import SCALED, Normalizer
from cpsae.stages.load import load
from cpsae.store import Store, open_store
from cpsae.training.run_folder import RunFolder

COLUMNS = ("l0", "l1", "cosine", "explained_variance", "relative_bias")
PAPERS = {
    name: dict(zip(("mse", *COLUMNS), values, strict=True))
    for name, values in {
        "the paper's baseline": (18.63, 90.60, 471.54, 0.770, 0.313, None),
        "the paper's CPSAE": (28.63, 42.05, 168.75, 0.727, -0.065, None),
    }.items()
}
"""Sec. 6 of the paper, which has no relative bias."""
_TOKENS = 16 * 127
"""By which SAEBench divides squared errors that it sums over d: a batch of 16 contexts of 128
tokens, the first of each left out."""
BASELINE, TRAINED = "baseline, as trained", "paper, as trained"
FOLDED, FOLDED_WITH_T = "paper, raw vectors, T as it is", "paper, raw vectors, T scaled too"

Row = Mapping[str, float | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, write the JSON; 0, or 1 with one line that says what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("baseline", type=Path, help="a finished run of the preset baseline")
    parser.add_argument("paper", type=Path, help="a finished run of the preset paper")
    parser.add_argument("--store", type=Path, help="where their store is now")
    parser.add_argument("--out", type=Path, default=Path("paper_row.json"))
    options = parser.parse_args(arguments)
    try:
        found = paper_row(options.baseline, options.paper, options.store)
        write_object(options.out, found)
    except CpsaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_text(found))
    return 0


def paper_row(baseline: Path, paper: Path, store: Path | None = None) -> dict[str, Any]:
    """`rows` of the table, and what follows from them, as JSON values. Raises CpsaeError."""
    plain, competing = _scaled(baseline), _scaled(paper)
    if competing.kind.name != "competitive":
        raise RunError(f"{paper}: is of the kind {competing.kind.name}, not one of --preset paper")
    opened, bound = _store_of([baseline, paper], store)
    rows = measured_rows(plain, competing, opened, bound)
    mean = mean_share(opened, bound)
    shown = {**{name: _shown(row) for name, row in rows.items()}, **PAPERS}
    return {
        "rows": shown,
        "scale": competing.normalizer.scale,
        "temperature": float(competing.kind.tensors["temperature"]),
        "implied": asdict(implied(*PAPERS.values())),
        "implied_scale": implied_scale(*PAPERS.values()),
        "check": {
            "mean_share": mean,
            "from_our_rows": {
                name: asdict(implied(rows[BASELINE], rows[name])) for name in (TRAINED, FOLDED)
            },
        },
    }


def measured_rows(
    baseline: SparseAutoencoder, paper: SparseAutoencoder, store: Store, bound: float
) -> dict[str, dict[str, Any]]:
    """All metrics of the four rows, `l1` in raw units; rows over `bound` do not count."""
    saes = {
        BASELINE: baseline,
        TRAINED: paper,
        FOLDED: folded(paper, temperature_too=False),
        FOLDED_WITH_T: folded(paper, temperature_too=True),
    }
    results = measure(list(saes.values()), store, bound)
    assert results is not None, "nobody asked to stop"
    return {
        name: {**result.metrics, "l1": (result.metrics["l1"] or 0.0) * sae.normalizer.scale}
        for (name, sae), result in zip(saes.items(), results, strict=True)
    }


def folded(sae: SparseAutoencoder, *, temperature_too: bool) -> SparseAutoencoder:
    """The same weights for raw vectors: both biases times the scale that vectors were divided by.
    That is exact for Eq. 5 where the temperature is multiplied with it too."""
    scale = sae.normalizer.scale
    weights = {name: tensor.detach().clone() for name, tensor in sae.named_parameters()}
    weights["b_enc"] *= scale
    weights["b_dec"] *= scale
    constants = sae.kind.constants()
    if temperature_too:
        constants["temperature"] *= scale
    kind = type(sae.kind).from_constants(constants, sae.d, sae.n_latents)
    return SparseAutoencoder(
        weights, kind.to(sae.b_dec.device), Normalizer("none"), n_enabled=sae.n_enabled
    )


def mean_share(store: Store, bound: float) -> float:
    """||mean||^2 / E||x||^2 of the held-out rows that count."""
    part = held_out_part(store)
    square, total, count = 0.0, np.zeros(part.d), 0
    for chunk in part.chunks:
        kept = part.rows(chunk)[part.norms(chunk) <= np.float64(bound)].astype(np.float64)
        square, total, count = square + (kept**2).sum(), total + kept.sum(0), count + len(kept)
    return float((total**2).sum() / count / square)


@dataclass(frozen=True)
class Implied:
    """What the cosine and explained variance of a baseline and of another row, measured on the same
    vectors, imply, in parts of E||x||^2. It is assumed that cosines are alike over rows, and that
    the baseline's amplitude is the best one, as squared error in training makes it."""

    baseline_error: float
    """1 - cosine^2, what the best amplitude leaves."""
    variance: float
    """That error over 1 - explained variance."""
    mean_share: float
    """The rest: ||mean||^2."""
    best_explained_variance: float
    """The other row's, at the best amplitude."""
    error: float
    """What the other row's explained variance says of its error."""
    amplitudes: tuple[float, float] | None
    """Which give that error, over the best one: relative biases. None where even the best one gives
    more."""


def implied(baseline: Row, row: Row) -> Implied:
    """From `cosine` and `explained_variance` of both. With s the amplitude over the best one,
    the error is 1 - cosine^2 + cosine^2 (s - 1)^2."""
    baseline_error = 1 - _value(baseline, "cosine") ** 2
    variance = baseline_error / (1 - _value(baseline, "explained_variance"))
    agreement = _value(row, "cosine") ** 2
    error = (1 - _value(row, "explained_variance")) * variance
    square = (error - (1 - agreement)) / agreement
    off = square**0.5 if square >= 0 else None
    return Implied(
        baseline_error=baseline_error,
        variance=variance,
        mean_share=1 - variance,
        best_explained_variance=1 - (1 - agreement) / variance,
        error=error,
        amplitudes=None if off is None else (1 - off, 1 + off),
    )


def implied_scale(baseline: Row, row: Row) -> float:
    """The root mean squared norm of the vectors, from the baseline's `mse` and what `implied` says
    of the variance. It is assumed that `mse` is SAEBench's."""
    variance = _value(baseline, "mse") * _TOKENS / (1 - _value(baseline, "explained_variance"))
    return float((variance / implied(baseline, row).variance) ** 0.5)


def as_text(found: Mapping[str, Any]) -> str:
    """The table and the arithmetic, as Markdown."""
    cells = [
        [name, *("" if row.get(key) is None else f"{row[key]:.4g}" for key in COLUMNS)]
        for name, row in found["rows"].items()
    ]
    headings = ["", "l0", "l1 (raw)", *COLUMNS[2:]]
    check = found["check"]
    lines = [
        markdown(headings, cells),
        "",
        f"scale {found['scale']:.4g}, T {found['temperature']:.4g}",
        "",
        *_scales(found),
        "",
        "From the paper's two rows, in parts of E||x||^2:",
        *_steps(found["implied"]),
        "",
        f"The same steps on our rows (their mean takes {check['mean_share']:.3f}):",
    ]
    for name, values in check["from_our_rows"].items():
        bias = found["rows"][name]["relative_bias"]
        lines += ["", f"{name}, whose relative bias is {bias:.3f}:", *_steps(values)]
    return "\n".join(lines)


def _scales(found: Mapping[str, Any]) -> list[str]:
    """L1 in units that do not hang on the language model."""
    rows, ours, theirs = found["rows"], found["scale"], found["implied_scale"]
    scales = {BASELINE: ours, TRAINED: ours, **dict.fromkeys(PAPERS, theirs)}
    told = ", ".join(f"{rows[name]['l1'] / scale:.3g} ({name})" for name, scale in scales.items())
    norm = f"vectors of a root mean squared norm of {theirs:.0f} (assumed: SAEBench's mse)"
    return [
        f"The paper's MSE and explained variance imply {norm}.",
        f"L1 over the root mean squared norm: {told}.",
    ]


def _steps(values: Mapping[str, Any]) -> list[str]:
    """Each step of `implied`, with what is assumed."""
    leaves, variance, mean = (values[k] for k in ("baseline_error", "variance", "mean_share"))
    best, error = values["best_explained_variance"], values["error"]
    amplitudes = values["amplitudes"]
    told = "less than at its best amplitude"
    if amplitudes:
        told = f"its amplitude is {amplitudes[0]:.2f} or {amplitudes[1]:.2f} times the best one"
    steps = (
        (f"the baseline leaves 1 - cosine^2 = {leaves:.3f}", "best amplitude, like cosines"),
        (f"divided by 1 - its explained variance: the variance takes {variance:.3f}", None),
        (f"the mean takes the rest, {mean:.3f}", None),
        (f"at the best amplitude the other row's cosine explains {best:.3f}", "same vectors"),
        (f"it leaves {error:.3f}: {told}", "like cosines"),
    )
    return [f"- {step}" + (f" (assumed: {why})" if why else "") for step, why in steps]


def _shown(row: Row) -> dict[str, float | None]:
    return {key: row[key] for key in ("l0_eff", *COLUMNS)}


def _value(row: Row, key: str) -> float:
    value = row[key]
    if value is None:
        raise RunError(f"{key} is not defined for one of the runs; train it longer")
    return value


def _scaled(run: Path) -> SparseAutoencoder:
    sae = load(run)
    if sae.normalizer.name not in SCALED:
        raise RunError(
            f"{run}: was trained with normalize={sae.normalizer.name}; this table is of runs with "
            "--set normalize=unit"
        )
    return sae


def _store_of(runs: Sequence[Path], moved_to: Path | None) -> tuple[Store, float]:
    """The store that all runs were trained on, and their bound of norms."""
    trained = [RunFolder(run).read_config()["store"] for run in runs]
    bounds = [RunFolder(run).facts().norm_bound for run in runs]
    store = open_store(moved_to or trained[0]["path"])
    for run, record, bound in zip(runs, trained, bounds, strict=True):
        if record["identity"] != store.identity or bound != bounds[0]:
            raise RunError(
                f"{run}: was trained on other rows than those of {store.path}; give two runs of "
                "one store and one max_norm"
            )
    return store, bounds[0]


if __name__ == "__main__":
    sys.exit(main())
