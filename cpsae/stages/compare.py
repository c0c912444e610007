"""Several runs beside each other, as one calls it: a table, a picture, and what is not alike."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpsae.config.resolve import flatten
from cpsae.durable import is_aside, local_folder, write_atomic
from cpsae.errors import RunError, SettingsError
from cpsae.events import Note, OnEvent, ignore
from cpsae.json_files import parse_object, read_object
from cpsae.reporting.picture import FORMATS, drawable
from cpsae.reporting.runs import Group, Run, distinct_names, group_by_seed
from cpsae.reporting.series import series_of
from cpsae.reporting.table import hindrances, markdown, table
from cpsae.training.recipes import known_to_0_1
from cpsae.training.run_folder import SWEEP, RunFolder
from cpsae.training.sweep import OF_THE_MACHINE

_NO_FIGURES = ("density", "store_identity")
"""What stands in evaluation.json beside figures."""
_NAMED = 3


@dataclass(frozen=True)
class Comparison:
    """Runs, and what of them is alike but for the seeds."""

    runs: dict[str, Run]
    """By the shortest names that tell them apart."""
    groups: list[Group]
    """The finished ones."""
    each: bool
    """Whether the table and the picture show every run, not every group."""
    picture: Path | None

    @property
    def shown(self) -> list[Group]:
        """What the table has a row of figures of, and the picture a point."""
        if not self.each:
            return self.groups
        return [Group(name, [run]) for name, run in self.runs.items() if run.finished]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows, as texts."""
        unfinished = [(name, run) for name, run in self.runs.items() if not run.finished]
        return table(self.shown, unfinished)

    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown(*self.table())

    def as_json(self) -> dict[str, Any]:
        """`runs`, `groups` and `picture`."""
        names = {id(run): name for name, run in self.runs.items()}
        return {
            "runs": [_described(name, run) for name, run in self.runs.items()],
            "groups": [
                _group(group, [names[id(run)] for run in group.runs]) for group in self.groups
            ],
            "picture": str(self.picture) if self.picture else None,
        }


def compare(
    paths: str | Path | Iterable[str | Path],
    out: str | Path | None = None,
    *,
    each: bool = False,
    on_event: OnEvent = ignore,
) -> Comparison:
    """Runs beside each other: those in `paths` that are runs, and all below those that are not
    (sweeps, folders of either). `out` is a .svg or .png to draw explained variance and CE-loss
    score against L0 into. Runs that differ in their seeds alone are one row and one point, unless
    `each` is asked for.

    Raises SettingsError where `out` is neither, RunError where a path holds no run or a run's
    files are damaged, DiskError where `out` cannot be written.
    """
    picture = None if out is None else _picture(out)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found = find_runs(given)
    runs = dict(zip(distinct_names(found), map(read_run, found), strict=True))
    groups, twice = group_by_seed(runs.values())
    compared = Comparison(runs, groups, each, picture)
    for text in _notes(compared, twice):
        on_event(Note(text, "warning"))
    if picture is not None:
        _draw(compared, picture, on_event)
    return compared


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders at or below each of `paths`, numbers in their names in the order of numbers, each
    once. Below a path, what `--fresh` set aside is left out. Raises RunError where a path is no
    folder or holds no run."""
    found: dict[Path, Path] = {}
    for path in paths:
        folder = local_folder(path, "run folder", RunError)
        if not folder.is_dir():
            raise RunError(f"{folder}: no such folder; give runs, or folders that runs are in")
        runs = [folder] if RunFolder(folder).started else list(_runs_below(folder))
        if not runs:
            raise RunError(
                f"{folder}: holds no run; give a folder that `cpsae fit` wrote, or one that such "
                "folders are in"
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_below(folder: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        entered = here.resolve() not in seen  # links may run in a circle
        seen.add(here.resolve())
        is_run = entered and "config.json" in files and _is_of_a_fit(here / "config.json")
        if is_run:
            yield here
        if is_run or not entered or "zarr.json" in files:  # a store is thousands of files
            folders.clear()
        wanted = [f for f in folders if not f.startswith(".") and not is_aside(here / f)]
        folders[:] = sorted(wanted, key=_by_number)


def _by_number(name: str) -> list[str | float]:
    """k=8 comes before k=16."""
    pieces = re.split(r"(\d+(?:\.\d+)?)", name)
    return [float(piece) if number % 2 else piece for number, piece in enumerate(pieces)]


def _is_of_a_fit(config: Path) -> bool:
    """Whether a config.json is a run's, and not a language model's; a damaged one counts, so that
    it is told of."""
    try:
        return {"settings", "store"} <= parse_object(config.read_bytes()).keys()
    except (OSError, ValueError):
        return True


def read_run(path: Path) -> Run:
    """What the files of a run say. Raises RunError where they are damaged."""
    folder = RunFolder(path)
    config = folder.read_config()
    try:
        facts = "facts" in config
        settings = flatten(config["settings"]) if facts else known_to_0_1(config["settings"])
        schedule = config["facts"]["schedule"] if facts else config["schedule"]
        store = config["store"]
        run = Run(
            path=folder.path,
            preset=str(config["preset"]),
            kind=str(settings["kind"]),
            settings={k: v for k, v in settings.items() if k not in (*OF_THE_MACHINE, "steps")},
            n=int(settings["n_latents"] or store["manifest"]["d"]),
            steps=int(schedule["steps"]),
            trained_on=str(store["identity"]),
            measured_on=str(store["identity"]),
            has_model=store["manifest"].get("model") is not None,
            state="finished" if folder.complete else _unfinished(folder.path),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(f"{path}: is no run; its config.json is not of `cpsae fit`") from None
    return _measured(run, folder) if run.finished else run


def _measured(run: Run, folder: RunFolder) -> Run:
    """The run with its figures. evaluation.json is written again by `cpsae evaluate`."""
    figures = folder.read_summary()
    if folder.evaluation.exists():
        figures |= read_object(folder.evaluation, RunError, f"`cpsae evaluate {run.path}` mends it")
    measured_on = str(figures.get("store_identity", run.trained_on))
    figures = {name: value for name, value in figures.items() if name not in _NO_FIGURES}
    return Run(**{**vars(run), "measured_on": measured_on, "figures": figures})


def _unfinished(path: Path) -> str:
    """`diverged` where the sweep that a run is of gave it up, else `unfinished`."""
    sweep = path.parent / SWEEP
    if not sweep.exists():
        return "unfinished"
    members = read_object(sweep, RunError, "run the same sweep again").get("members", [])
    given_up = [m.get("folder") for m in members if isinstance(m, dict) and "error" in m]
    return "diverged" if path.name in given_up else "unfinished"


def _notes(compared: Comparison, twice: Sequence[tuple[Run, Run]]) -> Iterator[str]:
    names = {id(run): name for name, run in compared.runs.items()}
    finished = {name: run for name, run in compared.runs.items() if run.finished}
    unfinished = [name for name, run in compared.runs.items() if run.state == "unfinished"]
    if unfinished:
        yield f"not finished: {_listed(unfinished)}; the command that began a run completes it"
    for run, other in twice:
        yield (
            f"{names[id(run)]} has the settings and the seeds of {names[id(other)]}; in its group "
            "it does not count"
        )
    hindrance = hindrances(list(finished.values()))
    if hindrance:
        yield hindrance
    unmeasured = [
        name
        for name, run in finished.items()
        if run.has_model and run.value("ce_loss_score") is None
    ]
    if unmeasured:
        yield (
            f"no ce_loss_score yet: {_listed(unmeasured)}; `cpsae evaluate RUN --model store` "
            "measures it"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _picture(out: str | Path) -> Path:
    """Raises SettingsError for a format that there is not."""
    path = Path(out).expanduser()
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        names = " or ".join(f".{name}" for name in FORMATS)
        raise SettingsError(f"--out {out}: expected a file name that ends in {names}")
    return path


def _draw(compared: Comparison, picture: Path, on_event: OnEvent) -> None:
    from cpsae.reporting.picture import draw  # here, for what it imports takes its time

    left_out = [g.name for g in compared.shown if not drawable(g, "explained_variance")]
    if left_out:
        text = f"not in the picture, without an L0 above 0: {_listed(left_out)}"
        on_event(Note(text, "warning"))
    content = draw(series_of(compared.shown), picture.suffix.lower().removeprefix("."))
    write_atomic(picture, content)
    on_event(Note(f"picture: {picture}"))


def _described(name: str, run: Run) -> dict[str, Any]:
    return {"name": name, **json.loads(json.dumps(asdict(run), default=str))}


def _group(group: Group, names: Sequence[str]) -> dict[str, Any]:
    run = group.first
    figures = {key: spread._asdict() for key in run.figures if (spread := group.spread(key))}
    return {
        "name": group.name,
        "runs": list(names),
        "preset": run.preset,
        "kind": run.kind,
        "n": run.n,
        "steps": run.steps,
        "figures": figures,
    }
