"""`cpsae evaluate`: runs on held-out rows, and in the language model."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of

_SEVERAL = ("l0", "explained_variance", "dead", "ce_loss_score", "kl_score")
"""What is printed of each of several runs."""


@click.command(short_help="Measure runs on a store's held-out rows.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
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
def command(runs: tuple[str, ...], **values: Any) -> None:
    """Measure the autoencoder of RUN on the held-out rows of a store, and with --model what its
    reconstructions do to the language model. RUN is a run, a sweep, or a folder of runs; what is
    the same for several is computed once.

    Writes RUN/evaluation.json, whose names docs/method.md explains; with --step
    RUN/evaluation-step-NNNNNN.json.
    """
    with terminal_of(values) as terminal:
        from cpsae.cli.memory import keep_freed_blocks
        from cpsae.stages.evaluate import evaluate_each, is_run

        keep_freed_blocks()
        step = values["step"]
        after = "" if step is None else f" after step {step:,}"
        found = evaluate_each(runs, **values, on_event=terminal.on_event)
        if len(runs) == 1 and is_run(runs[0]):
            [result] = found.values()
            if not terminal.result(result.content):
                title = f"{runs[0]}{after} (held-out rows)"
                terminal.table(title, list(_rows(result.content)))
                terminal.note(f"{result.path} is written")
            return
        each = [{"run": str(path), **result.content} for path, result in found.items()]
        if not terminal.result({"runs": each}):
            shown = [name for name in _SEVERAL if name in each[0]]
            rows = [[content.get(name) for name in ("run", *shown)] for content in each]
            terminal.grid(f"held-out rows{after}", ["run", *shown], rows)


def _rows(content: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Name, value and interval of each figure: ours, then those of SAEBench."""
    from cpsae.cli.terminal import shown

    for theirs in (False, True):
        for name, value in content.items():
            if name.startswith("saebench/") is theirs and isinstance(value, float | int | None):
                ends = content.get(f"{name}_ci")
                interval = f"[{shown(ends[0])}, {shown(ends[1])}]" if ends else ""
                yield name, value, interval
