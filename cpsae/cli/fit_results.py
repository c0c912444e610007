"""What `cpsae fit` ends with: a page to look at, held-out figures, and the command to run next."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.stages.fit import FitResult
    from cpsae.stages.sweep import SweepResult

SHOWN = ("explained_variance", "cosine", "l0", "l0_eff", "dead", "mse", "skipped_rows")


def show(terminal: "Terminal", result: "FitResult | SweepResult") -> None:
    """A table, or one JSON object."""
    from cpsae.stages.fit import FitResult

    if isinstance(result, FitResult):
        if not terminal.result({"path": str(result.path), **result.summary}):
            rows = [(key, result.summary[key]) for key in SHOWN]
            terminal.table(f"{result.path} (held-out rows)", rows)
            terminal.note(f"next: {_next(result.path)}")
        return
    content = {"path": str(result.path), "keys": result.keys, "members": result.members}
    if not terminal.result(content):
        table = [
            [m["folder"], *(m["summary"][key] for key in SHOWN if m["summary"])]
            for m in result.members
        ]
        terminal.grid(f"{result.path} (held-out rows)", ["run", *SHOWN], table)
        terminal.note(f"next: cpsae compare {shlex.quote(str(result.path))} --out frontier.svg")


def report_of(terminal: "Terminal", result: "FitResult | SweepResult") -> None:
    """One page about what was trained. Where it cannot be made, a line says so and all is well."""
    from cpsae.errors import first_line
    from cpsae.stages.fit import FitResult

    runs = [result.path]
    if not isinstance(result, FitResult):
        runs = [result.path / member["folder"] for member in result.members]
    try:
        from cpsae.stages.report import report_of_fit

        done = report_of_fit(runs, result.path, terminal.on_event)
    except Exception as error:  # of whatever kind: a finished fit is not to fail of it
        terminal.note(f"no report.html: {first_line(error)}", "warning")
        return
    if done is not None:
        terminal.note(f"its features, with examples: {done.path}")


def _next(run: Path) -> str:
    """The command that most would give now: the language model's own loss, where there is one."""
    from cpsae.training.run_folder import RunFolder

    name = shlex.quote(str(run))
    if RunFolder(run).read_config()["store"]["manifest"].get("model"):
        return f"cpsae evaluate {name} --model store"
    return f"cpsae export {name} --to sae-lens --out DIR"
