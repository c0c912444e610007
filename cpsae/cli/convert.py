"""`cpsae convert`: what another program trained, as a run."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of, usage_errors

_SHOWN = ("what", "kind", "d", "n_latents")
_MEASURED = ("l0", "explained_variance", "cosine", "dead")


@click.command(short_help="Make a run of what another program trained.")
@click.argument("source", metavar="SRC")
@click.option("--out", required=True, metavar="RUN", help="A folder that is not there, or empty.")
@click.option(
    "--store", metavar="FOLDER", help="Activations of its model and layer, to measure it on."
)
@click.option("--model", metavar="NAME", help="The model that it is of, if its files do not say.")
@click.option("--layer", type=click.IntRange(0), metavar="N", help="The block, counted from 0.")
@click.option(
    "--hook", metavar="POINT", help="The place in it: resid_pre, attn_out, mlp_out or resid_post."
)
@click.option(
    "--scaling-factor",
    type=float,
    metavar="X",
    help="What rows were multiplied with in its training, where its folder does not say.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:I.")
@output_options
def command(source: str, **values: Any) -> None:
    """Make RUN of the autoencoder in the folder SRC: `cpsae evaluate`, `compare`, `export` and
    `fit --init` then take it like a run of their own. It takes raw activations and gives raw
    reconstructions, those that it gives in its own program.

    \b
    SAELens              cfg.json, sae_weights.safetensors
    sparsify             cfg.json, sae.safetensors
    dictionary_learning  config.json, ae.safetensors
                         (of ae.pt: the error says how)
    Gemma Scope          params.npz or params.safetensors
    cpsae export --to safetensors

    docs/export-format.md says what of each is taken. Nothing is unpickled.
    """
    with terminal_of(values) as terminal:
        from cpsae.stages.convert import convert

        with usage_errors():
            done = convert(source, **values, on_event=terminal.on_event)
        content = done.as_json()
        if not terminal.result(content):
            shown = (*_SHOWN, *_MEASURED) if done.metrics else _SHOWN
            terminal.table(
                f"{done.path} ({done.format})", [(name, content[name]) for name in shown]
            )
            if not done.metrics:
                terminal.note(f"next: cpsae evaluate {done.path} --store STORE")
