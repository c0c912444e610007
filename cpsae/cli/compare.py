"""`cpsae compare`: runs beside each other."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of, usage_errors


@click.command(short_help="Put runs beside each other, in a table and a picture.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="FILE",
    help="Draw explained variance and CE-loss score against L0 into this .svg or .png.",
)
@click.option("--each", is_flag=True, help="Show every run, also those that differ in seeds alone.")
@click.option(
    "--columns", metavar="NAME,NAME", help="More figures of evaluation.json or summary.json."
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@output_options
def command(
    runs: tuple[str, ...],
    out: str | None,
    each: bool,
    columns: str | None,
    markdown: bool,
    **values: Any,
) -> None:
    """Put runs beside each other. RUN is a run, a sweep, or a folder of runs and sweeps.

    Runs that differ in their seeds alone are one row: mean ± standard deviation.
    """
    if markdown and values["as_json"]:
        raise click.UsageError("--markdown and --json: are two forms of one table; take one")
    with terminal_of(values) as terminal:
        from cpsae.stages.compare import compare

        with usage_errors():
            more = [name.strip() for name in columns.split(",")] if columns else []
            compared = compare(runs, out, each=each, columns=more, on_event=terminal.on_event)
        if terminal.result(compared.as_json()):
            return
        if markdown:
            terminal.print(compared.markdown())
        else:
            several = any(len(group.runs) > 1 for group in compared.shown)
            title = "held-out rows" + (", mean ± standard deviation over seeds" if several else "")
            terminal.grid(title, *compared.table(), names=2)
