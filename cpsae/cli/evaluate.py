"""`cpsae evaluate`: a run on held-out rows, and in the language model."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of


@click.command(short_help="Measure a run on a store's held-out rows.")
@click.argument("run", metavar="RUN")
@click.option("--store", metavar="FOLDER", help="Another store; by default the run's own.")
@click.option(
    "--model",
    metavar="ID|PATH",
    help="Put reconstructions into this language model too: a hub name, local folder or .gguf "
    "file, or `store` for the one that the store was made with.",
)
@click.option(
    "--contexts",
    type=click.IntRange(1),
    metavar="N",
    help="The first N held-out contexts alone; by default all.",
)
@click.option(
    "--step",
    type=click.IntRange(1),
    metavar="N",
    help="The autoencoder after that step, of a finished run or another; by default the final one.",
)
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a model on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the model brings along.")
@click.option(
    "--dtype",
    metavar="TYPE",
    help="The model computes in bfloat16, float16 or float32; by default as for the store.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="auto, cpu, cuda or cuda:I.",
)
@output_options
def command(run: str, **values: Any) -> None:
    """Measure the autoencoder of RUN on the held-out rows of a store, and with --model what its
    reconstructions do to the language model.

    Writes RUN/evaluation.json, whose names docs/method.md explains; with --step
    RUN/evaluation-step-NNNNNN.json.
    """
    with terminal_of(values) as terminal:
        from cpsae.stages.evaluate import evaluate

        result = evaluate(run, **values, on_event=terminal.on_event)
        if not terminal.result(result.content):
            step = values["step"]
            after = "" if step is None else f" after step {step:,}"
            terminal.table(f"{run}{after} (held-out rows)", list(_rows(result.content)))


def _rows(content: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Name, value and interval of each figure: ours, then those of SAEBench."""
    from cpsae.cli.terminal import shown

    for theirs in (False, True):
        for name, value in content.items():
            if name.startswith("saebench/") is theirs and isinstance(value, float | int | None):
                ends = content.get(f"{name}_ci")
                interval = f"[{shown(ends[0])}, {shown(ends[1])}]" if ends else ""
                yield name, value, interval
