"""What a report says of runs as a whole: what each was trained on, its figures, curves and place
among others."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from cpsae.dashboard.figures import headlines
from cpsae.dashboard.training_log import curves, read_log
from cpsae.errors import CpsaeError
from cpsae.interop.origin import Origin
from cpsae.reporting.runs import Group, Run, group_by_seed
from cpsae.reporting.series import SPARSITY, series_of
from cpsae.stages.found_runs import read_run
from cpsae.training.run_folder import RunFolder

_BESIDE = 200
"""Runs in the folder that a run is in, at most, that its picture shows beside it."""


def described(name: str, run: Run) -> dict[str, Any]:
    """A run as the page's overview has it."""
    folder = RunFolder(run.path)
    config = folder.read_config()
    origin = Origin.of_run(config)
    facts = {**_about_rows(config, origin), **_about_training(config, run)}
    return {
        "name": name,
        "method": run.method,
        "title": _title(run, origin),
        "line": _line(run, origin),
        "facts": [[label, text] for label, text in facts.items() if text],
        "headlines": headlines(run.figures, run.n),
        "curves": curves(read_log(folder.metrics)),
    }


def frontier(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """L0 against explained variance: lines with their points. Of one run alone, with those that lie
    beside it and were trained on the same store."""
    shown = list(runs)
    if len(shown) == 1:
        shown += _beside(shown[0])
    groups, _ = group_by_seed(shown)
    numbers = {id(run): number for number, run in enumerate(runs)}
    lines = []
    for series in series_of(groups):
        points = [_point(group, numbers) for group in series.groups]
        lines.append({"label": series.label, "points": [p for p in points if p is not None]})
    return [line for line in lines if line["points"]]


def model_name(origin: Origin) -> str:
    """The language model in a reader's words."""
    return (origin.model or "").removesuffix(".gguf")


def _point(group: Group, numbers: Mapping[int, int]) -> dict[str, Any] | None:
    l0, explained = group.spread("l0"), group.spread("explained_variance")
    if l0 is None or explained is None or l0.low <= 0:
        return None
    mine = [numbers[id(run)] for run in group.runs if id(run) in numbers]
    return {
        "name": group.name,
        "l0": float(f"{l0.mean:.5g}"),
        "explained_variance": float(f"{explained.mean:.5g}"),
        "seeds": len(group.runs),
        "bar": [float(f"{end:.5g}") for end in group.bar("explained_variance") or ()],
        "run": mine[0] if mine else None,
    }


def _beside(run: Run) -> list[Run]:
    """Finished runs on the same store, in the folder that a run is in."""
    found: list[Run] = []
    folders = sorted(run.path.absolute().parent.glob("*/config.json"))
    for config in folders[:_BESIDE]:
        if config.parent.resolve() == run.path.resolve():
            continue
        with suppress(CpsaeError):  # another run's damage is not this one's
            other = read_run(config.parent)
            if other.finished and other.measured_on == run.measured_on is not None:
                found.append(other)
    return found


def _title(run: Run, origin: Origin) -> str:
    if origin.model is None:
        return f"{run.n:,} features of vectors"
    place = f", layer {origin.layer}" if origin.layer is not None else ""
    return f"{run.n:,} features of {model_name(origin)}{place}"


def _line(run: Run, origin: Origin) -> str:
    if run.steps is None:
        return f"{run.method}, trained by another program"
    rows = run.value("rows")
    told = f"{run.method}, trained for {run.steps:,} steps"
    if rows:
        told += f" on {rows:,.0f} activation vectors"
    return told + (f" of {origin.dataset}" if origin.dataset else "")


def _about_rows(config: Mapping[str, Any], origin: Origin) -> dict[str, str]:
    manifest = (config.get("store") or {}).get("manifest") or {}
    place = origin.point or origin.place or ""
    layer = "" if origin.layer is None else f"layer {origin.layer}"
    size = f"{manifest['vectors']:,} vectors of {manifest['d']:,} dimensions" if manifest else ""
    return {
        "Language model": model_name(origin),
        "Revision": (origin.model_revision or "")[:12],
        "Activations": ", ".join(filter(None, (layer, place))) or "vectors from arrays",
        "Text": origin.dataset or "",
        "Store": size,
        "Context": f"{origin.context_size} tokens" if origin.context_size else "",
    }


def _about_training(config: Mapping[str, Any], run: Run) -> dict[str, str]:
    settings = run.settings
    sparsity = [f"{key} = {settings[key]:g}" for key in SPARSITY if _is_number(settings.get(key))]
    steps = "" if run.steps is None else f"{run.steps:,} steps"
    if steps and _is_number(settings.get("batch_size")):
        steps += f" of {settings['batch_size']:,} vectors"
    return {
        "Autoencoder": run.method,
        "Features": f"{run.n:,}",
        "Sparsity": ", ".join(sparsity),
        "Training": steps,
        "Normalisation": str(settings.get("normalize", "")),
        "Seed": str(settings.get("seed", "")),
        "Made with": f"cpsae {config.get('software', {}).get('cpsae', '')}".strip(),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
