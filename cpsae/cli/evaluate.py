"""`cpsae evaluate`: a run on held-out rows."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of


@click.command(short_help="Measure a run on a store's held-out rows.")
@click.argument("run", metavar="RUN")
@click.option("--store", metavar="FOLDER", help="Another store; by default the run's own.")
@click.option(
    "--step",
    type=click.IntRange(1),
    metavar="N",
    help="The autoencoder after that step, of a finished run or another; by default the finished.",
)
@output_options
def command(run: str, store: str | None, step: int | None, **values: Any) -> None:
    """Measure the autoencoder of RUN on the held-out rows of a store.

    Writes RUN/evaluation.json, whose names docs/method.md explains; with --step
    RUN/evaluation-step-NNNNNN.json.
    """
    with terminal_of(values) as terminal:
        from cpsae.stages.evaluate import evaluate

        result = evaluate(run, store, step=step, on_event=terminal.on_event)
        if not terminal.result(result.as_json()):
            after = "" if step is None else f" after step {step:,}"
            terminal.table(f"{run}{after} (held-out rows)", list(result.metrics.items()))
