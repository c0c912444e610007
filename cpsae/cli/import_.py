"""`cpsae import`: activations of another program, as a store."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of, usage_errors


@click.command(short_help="Make a store of activations from elsewhere.")
@click.argument("source", metavar="SRC")
@click.option("--store", required=True, metavar="FOLDER", help="The store to be made.")
@click.option("--tensor", metavar="NAME", help="Which tensor or column, where there are several.")
@click.option(
    "--evaluation",
    metavar="SRC",
    help="Rows to hold out, of other documents; by default the last ones of SRC.",
)
@click.option("--layer", type=click.IntRange(0), metavar="N", help="The block, counted from 0.")
@click.option(
    "--hook", metavar="POINT", help="The place in it: resid_pre, attn_out, mlp_out or resid_post."
)
@click.option("--model", metavar="NAME", help="The model that they are of, for the description.")
@click.option("--description", metavar="TEXT", help="What `cpsae info` says of them.")
@click.option(
    "--store-dtype",
    default="bfloat16",
    show_default=True,
    metavar="TYPE",
    help="bfloat16, float16 or float32.",
)
@click.option(
    "--drop-first", is_flag=True, help="Leave out the first position of each context (BOS)."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of the rows."
)
@output_options
def command(source: str, store: str, **values: Any) -> None:
    """Make a store of the activations in SRC, which `cpsae fit` then trains on.

    \b
    .npy          rows (vectors, d), or
                  contexts (contexts, positions, d)
    .safetensors  a tensor of such a shape
    a folder      of several files of either kind
    a folder      that SAELens' CacheActivationsRunner wrote

    Files are mapped, not read, so that any number of rows fits the memory. The same command goes on
    where one was broken off. Nothing is unpickled.
    """
    with terminal_of(values) as terminal:
        from cpsae.stages.import_ import import_rows

        with usage_errors():
            done = import_rows(source, store, **values, on_event=terminal.on_event)
        content = done.as_json()
        if not terminal.result(content):
            shown = [(key, value) for key, value in content.items() if value not in (None, "")]
            terminal.table(str(done.path), shown[1:])
            terminal.note(f"next: cpsae fit --store {done.path}")
