"""`cpsae evaluate`: a run on held-out rows."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of


@click.command(short_help="Measure a run on a store's held-out rows.")
@click.argument("run", metavar="RUN")
@click.option("--store", metavar="FOLDER", help="Another store; by default the run's own.")
@output_options
def command(run: str, store: str | None, **values: Any) -> None:
    """Measure the autoencoder of RUN on the held-out rows of a store.

    Writes RUN/evaluation.json, whose names docs/method.md explains.
    """
    with terminal_of(values) as terminal:
        from cpsae.stages.evaluate import evaluate

        result = evaluate(run, store, on_event=terminal.on_event)
        if not terminal.result(result.as_json()):
            terminal.table(f"{run} (held-out rows)", list(result.metrics.items()))
