"""Several runs beside each other, as one calls it: a table, a picture, and what is not alike."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cpsae.durable import write_atomic
from cpsae.errors import SettingsError
from cpsae.events import Note, OnEvent, ignore
from cpsae.reporting.picture import FORMATS, draw, drawable
from cpsae.reporting.runs import Group, Run, distinct_names, group_by_seed
from cpsae.reporting.series import series_of
from cpsae.reporting.table import hindrances, markdown, table
from cpsae.stages.found_runs import find_runs, read_run

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
    columns: tuple[str, ...]
    """Figures that the table shows beside those that it always shows."""
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
        return table(self.shown, unfinished, self.columns)

    def __repr__(self) -> str:
        return self.markdown()

    def _repr_markdown_(self) -> str:
        return self.markdown()

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
    columns: Sequence[str] = (),
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
    _refuse_unknown(columns, groups)
    compared = Comparison(runs, groups, each, tuple(columns), picture)
    for text in _notes(compared, twice):
        on_event(Note(text, "warning"))
    if picture is not None:
        _draw(compared, picture, on_event)
    return compared


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


def _refuse_unknown(columns: Sequence[str], groups: Sequence[Group]) -> None:
    known = {name for group in groups for run in group.runs for name in run.figures}
    for column in columns:
        if groups and column not in known:
            raise SettingsError(
                f"--columns {column}: no run has this figure; there are {', '.join(sorted(known))}"
            )


def _draw(compared: Comparison, picture: Path, on_event: OnEvent) -> None:
    left_out = [g.name for g in compared.shown if not drawable(g, "explained_variance")]
    if left_out:
        text = f"not in the picture, without an L0 above 0: {_listed(left_out)}"
        on_event(Note(text, "warning"))
    content = draw(series_of(compared.shown), picture.suffix.lower().removeprefix("."))
    write_atomic(picture, content)
    on_event(Note(f"picture: {picture}"))


def _described(name: str, run: Run) -> dict[str, Any]:
    return {"name": name, **asdict(run), "path": str(run.path)}


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
