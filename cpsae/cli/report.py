"""`cpsae report`: runs and their features on one HTML page."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of, usage_errors


@click.command(short_help="Show runs and their features on one HTML page.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--out", metavar="FILE", help="The page; by default RUN/report.html, of several ./report.html."
)
@click.option(
    "--rows",
    metavar="COUNT",
    default="100k",
    show_default=True,
    help="Rows to look for examples in: the held-out ones, then the first of training.",
)
@click.option("--store", metavar="FOLDER", help="Another store; by default the run's own.")
@click.option(
    "--model",
    metavar="ID|PATH",
    help="The language model, for its words: a hub name, local folder or .gguf file, or `store` "
    "for the one that the store was made with; by default that one, where it is on this machine.",
)
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a model on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the model brings along.")
@click.option(
    "--logits/--no-logits",
    default=True,
    show_default=True,
    help="Show which output tokens a feature promotes, for which the whole model is loaded.",
)
@click.option(
    "--neuronpedia",
    metavar="DIR",
    help="Write a run's features as Neuronpedia takes them into this folder, too.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="auto, cpu, cuda or cuda:I.",
)
@output_options
def command(runs: tuple[str, ...], rows: str, **values: Any) -> None:
    """Write one self-contained page about RUN, a run, a sweep, or a folder of runs: what it is
    worth, and each feature with the text that fires it. It needs no network and stays under 10 MB.

    FILE#f123 opens it at feature 123.
    """
    with terminal_of(values) as terminal:
        from cpsae.cli.memory import keep_freed_blocks
        from cpsae.config import parse_count
        from cpsae.errors import SettingsError
        from cpsae.stages.report import report

        keep_freed_blocks()
        with usage_errors():
            try:
                count = parse_count(rows)
            except ValueError:
                raise SettingsError(f"--rows: '{rows}' is not a number like 100k") from None
            done = report(runs, rows=count, **values, on_event=terminal.on_event)
        if terminal.result(done.as_json()):
            return
        terminal.print(f"{done.path} ({done.size / 1e6:.1f} MB): open it in a browser")
        if done.neuronpedia is not None:
            terminal.print(f"{done.neuronpedia}: features for Neuronpedia")
