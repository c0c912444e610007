"""`cpsae export`: a run in another program's format."""

from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of, usage_errors
from cpsae.interop import TARGETS


@click.command(short_help="Write a run in another program's format.")
@click.argument("run", metavar="RUN")
@click.option(
    "--to",
    required=True,
    type=click.Choice(list(TARGETS)),
    metavar="FORMAT",
    help="One of those above.",
)
@click.option("--out", metavar="DIR", help="A folder that is not there, or empty.")
@click.option(
    "--push",
    metavar="ORG/NAME[/FOLDER]",
    help="Upload it to the Hugging Face hub, as whom `hf auth login` or HF_TOKEN say.",
)
@click.option("--private", is_flag=True, help="Make the repository on the hub a private one.")
@click.option(
    "--step",
    type=click.IntRange(1),
    metavar="N",
    help="The autoencoder after that step, of a finished run or another; by default the final one.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="What that program calls the language model; by default its name in the store.",
)
@output_options
def command(run: str, to: str, **values: Any) -> None:
    """Write the autoencoder of RUN into the folder DIR, as another program loads it, with a
    README.md on what it is and what it is worth; or upload it to the Hugging Face hub; or both. It
    takes raw activations and gives raw reconstructions there.

    \b
    sae-lens             cfg.json, sae_weights.safetensors
    dictionary-learning  ae.pt, config.json
    sparsify             cfg.json, sae.safetensors; topk
    saebench             SAELens' files, for SAEBench
    safetensors          for a few lines of torch

    docs/guide.md says which kinds and normalisations each can hold.
    """
    with terminal_of(values) as terminal:
        from cpsae.stages.export import export

        with usage_errors():
            done = export(run, to, **values)
        for note in done.files.notes:
            terminal.note(note)
        content = done.as_json()
        if not terminal.result(content):
            shown = ("what", "d_in", "n_latents", "latent_scale", "load")
            rows = [(name, content[name]) for name in shown]
            terminal.table(f"{done.path or values['push']} ({to})", rows)
            if done.pushed:
                terminal.print(f"pushed to {done.pushed}")
