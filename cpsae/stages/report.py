"""Runs as one HTML page, as one calls it: what they are worth, and every feature with examples."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cpsae
from cpsae.at_hand import model_at_hand
from cpsae.dashboard.page import render
from cpsae.durable import write_atomic
from cpsae.errors import RunError, SettingsError
from cpsae.events import Note, OnEvent, ignore
from cpsae.reporting.runs import Run, distinct_names
from cpsae.stages.browsed import MOST_BYTES, Browsed, Browser, Look
from cpsae.stages.found_runs import find_runs, read_run
from cpsae.stages.shown_runs import described, frontier
from cpsae.training.run_folder import REPORT, RunFolder

ROWS = 100_000
"""Rows that features are looked at in, unless other numbers are asked for."""

_ROWS_OF_FIT = 20_000


@dataclass(frozen=True)
class Report:
    """A page that was written."""

    path: Path
    size: int
    """Bytes."""
    runs: dict[str, dict[str, Any]]
    """By name: `path`, and where its features are on the page `features`, `rows`, `silent`,
    `dense`, `texts` (whether tokens are shown as text) and `logits`."""
    notes: list[str]
    neuronpedia: Path | None

    def as_json(self) -> dict[str, Any]:
        """The same, as one object."""
        runs = [{"name": name, **run} for name, run in self.runs.items()]
        neuronpedia = str(self.neuronpedia) if self.neuronpedia else None
        return {
            "path": str(self.path),
            "bytes": self.size,
            "runs": runs,
            "notes": self.notes,
            "neuronpedia": neuronpedia,
        }


def report(
    runs: str | Path | Iterable[str | Path],
    out: str | Path | None = None,
    *,
    rows: int = ROWS,
    store: str | os.PathLike[str] | None = None,
    model: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    logits: bool = True,
    neuronpedia: str | Path | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Report:
    """Write the finished runs at or below `runs` as one self-contained page into the file `out` (by
    default RUN/report.html, of several runs ./report.html), never over 10 MB.

    Features are looked at in the held-out rows of the runs' stores (or of `store`), and where
    they are fewer than `rows` in the first ones of training. model: whose tokenizer and, with
    `logits`, output words are shown: a hub name at `revision`, a folder, a .gguf file, or `store`
    for the one that the store names; by default that one, where it is on this machine.
    neuronpedia: a folder to write the features of a run to as Neuronpedia takes them.

    Raises SettingsError where `out`, `rows` or `neuronpedia` cannot apply; RunError where a path
    holds no run, or one that is not finished; StoreError, ModelError, ExportError, DiskError. No
    page is written then.
    """
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    found = _finished(given, on_event)
    page = _place(given, [run.path for run in found], out)
    if rows < 1:
        raise SettingsError(f"--rows: {rows} is not a number of rows; take 1 or more")
    if neuronpedia is not None and len(found) > 1:
        raise SettingsError("--neuronpedia: takes the features of one run; give that run alone")
    look = Look(rows, store, model, revision, trust_remote_code, logits, device)
    browser = Browser(look, on_event)
    names = distinct_names([run.path for run in found])
    browsed = browser.browse(found)
    folder = None if neuronpedia is None else browser.write_neuronpedia(browsed[0], neuronpedia)
    content, notes = _fitting(browser, browsed, found, names)
    write_atomic(page, content)
    told = {
        name: {"path": str(run.path), **(browsed[i].as_json() if i < len(browsed) else {})}
        for i, (name, run) in enumerate(zip(names, found, strict=True))
    }
    for note in notes:
        on_event(Note(note))
    return Report(page, len(content), told, notes, folder)


def report_of_fit(runs: Sequence[Path], folder: Path, on_event: OnEvent = ignore) -> Report | None:
    """The page of runs of one store that were just finished, in `folder`, from few rows and without
    the language model's weights, so that a fit takes hardly longer; None where the store's
    tokenizer is not on this machine, or the page is newer than all runs.

    Raises what `report` raises.
    """
    page, first = folder / REPORT, RunFolder(runs[0])
    finished = max(RunFolder(run).summary.stat().st_mtime for run in runs)
    if page.exists() and page.stat().st_mtime >= finished:
        return None
    manifest = first.read_config()["store"]["manifest"]
    model, contexts = manifest.get("model"), manifest.get("contexts")
    if model is None or contexts is None:
        return None
    if model_at_hand(model["id"], model.get("revision")) is None:
        on_event(Note("no report: the store's language model is not on this machine", "detail"))
        return None
    return report(runs, page, rows=_ROWS_OF_FIT, logits=False, on_event=on_event)


def _finished(given: Sequence[str | Path], on_event: OnEvent) -> list[Run]:
    """Raises RunError for a run that is given itself and is not finished."""
    found = []
    own = {RunFolder(path).path.resolve() for path in given}
    for path in find_runs(given):
        run = read_run(path)
        if run.finished:
            found.append(run)
        elif path.resolve() in own:
            raise RunError(
                f"{path}: is not finished; run the same `cpsae fit` again to complete it, then "
                "report it"
            )
        else:
            on_event(Note(f"{path}: is not finished; left out", "warning"))
    if not found:
        raise RunError(f"{', '.join(map(str, given))}: no run is finished; run `cpsae fit` again")
    return found


def _place(given: Sequence[str | Path], runs: Sequence[Path], out: str | Path | None) -> Path:
    """Raises SettingsError for a name that is not of a page."""
    if out is None:
        alone = len(given) == 1 and RunFolder(given[0]).started
        return runs[0] / REPORT if alone else Path(REPORT)
    path = Path(out).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--out {out}: expected a file name that ends in .html")
    if path.is_dir():
        raise SettingsError(f"--out {out}: is a folder; expected the name of a file")
    return path


def _fitting(
    browser: Browser, browsed: Sequence[Browsed], runs: Sequence[Run], names: Sequence[str]
) -> tuple[bytes, list[str]]:
    """The page with as many examples as it has room for, and what it tells of itself."""
    overview = [described(name, run) for name, run in zip(names, runs, strict=True)]
    points = frontier(runs)
    for amounts in browser.amounts():
        details, notes = browser.details(browsed, amounts)
        if len(browsed) < len(runs):
            notes.append(
                f"Features are shown of {len(browsed)} of the {len(runs)} runs, the first ones: "
                "for the others, report one alone."
            )
        for number, run in enumerate(overview):
            run["summary"] = browsed[number].summary() if number < len(browsed) else None
        content = render(
            {"title": _title(overview), "description": overview[0]["line"]},
            {
                "version": cpsae.__version__,
                "title": _title(overview),
                "notes": notes,
                "runs": overview,
                "frontier": points,
            },
            details,
        )
        if len(content) <= MOST_BYTES:
            break
    return content, notes


def _title(overview: Sequence[dict[str, Any]]) -> str:
    if len(overview) == 1:
        return str(overview[0]["title"])
    return f"{len(overview)} sparse autoencoders"
