"""`cpsae extract`: stage 1."""

import shlex
from typing import Any

import click

from cpsae.cli.options import (
    Option,
    given,
    output_options,
    resolve_settings,
    settings_options,
    terminal_of,
    usage_errors,
)

OPTIONS = [
    Option("--layer", "layer", "N[,N…]", "Block, or blocks, counted from 0.", "19"),
    Option(
        "--hook",
        "hook",
        "POINT[,POINT…]",
        "Where in a block: resid_pre, attn_out, mlp_out, resid_post (its output).",
        "resid_post",
    ),
    Option("--tokens", "tokens", "T", "Tokens a context, the first (BOS) included.", "128"),
    Option("--vectors", "vectors", "COUNT", "Training rows, like 300000, 512k or 10M.", "10M"),
    Option(
        "--model",
        "model",
        "ID|PATH",
        "Hub name, local folder or .gguf file.",
        "google/gemma-2-2b",
    ),
    Option("--revision", "revision", "REV", "Branch, tag or commit of a model on the hub."),
    Option(
        "--dataset",
        "dataset",
        "ID|PATH",
        "Hub name, or a local file or folder: text, source files, .jsonl, .json, .csv, .tsv, "
        ".parquet, .arrow, folders of save_to_disk, and each of them compressed.",
        "monology/pile-uncopyrighted",
    ),
    Option(
        "--dataset-revision",
        "dataset_revision",
        "REV",
        "Branch, tag or commit of a data set on the hub.",
    ),
    Option("--dataset-config", "dataset_config", "NAME", "Configuration of a data set."),
    Option(
        "--split", "split", "NAME", "Split of the records; by default the only one, else train."
    ),
    Option("--text-field", "text_field", "NAME", "Field of a record that holds text.", "text"),
    Option(
        "--ids-field", "ids_field", "NAME", "Field that holds token ids, of data tokenised already."
    ),
    Option(
        "--messages-field",
        "messages_field",
        "NAME",
        "Field that holds a chat's messages, for the tokenizer's chat template.",
    ),
    Option(
        "--encoding",
        "encoding",
        "NAME",
        "Of text that is not UTF-8 and has no byte-order mark, like cp1251.",
    ),
    Option(
        "--store",
        "store",
        "FOLDER|URL",
        "Where to write; of several sites a folder of stores. s3://, gs:// and az:// too.",
        "acts.zarr",
    ),
    Option(
        "--dtype",
        "dtype",
        "TYPE",
        "The model computes in auto, bfloat16, float16 or float32; auto is bfloat16 on a GPU, "
        "float32 on a CPU.",
        "auto",
    ),
    Option(
        "--store-dtype",
        "store_dtype",
        "TYPE",
        "What is written: bfloat16, float16 or float32.",
        "bfloat16",
    ),
    Option("--device", "device", "DEVICE", "auto, cpu, cuda or cuda:I.", "auto"),
    Option("--batch-contexts", "batch_contexts", "N", "Contexts a forward pass."),
    Option(
        "--attention",
        "attention",
        "NAME",
        "auto, eager, sdpa, flash_attention_2 or flex_attention; auto is eager for models with "
        "soft-capping.",
        "auto",
    ),
    Option("--seed", "seed", "N", "Seed of the shuffle of contexts.", "0"),
]


@click.command(short_help="Write a language model's activations to a store.")
@settings_options(OPTIONS)
@click.option("--keep-bos", is_flag=True, help="Store the first position of each context too.")
@click.option(
    "--special-tokens",
    is_flag=True,
    help="Take what the text spells, like <bos>, for the special tokens themselves.",
)
@click.option(
    "--trust-remote-code", is_flag=True, help="Run code that a model or data set brings along."
)
@click.option("--recipe", metavar="FILE", help="Settings from a TOML file; options win.")
@click.option("--resume/--fresh", default=True, help="Continue (default), or move aside and begin.")
@output_options
def command(
    keep_bos: bool,
    special_tokens: bool,
    trust_remote_code: bool,
    recipe: str | None,
    resume: bool,
    **values: Any,
) -> None:
    """Write the activations of one place in a language model to a Zarr store, or those of several
    places, in one pass, to a folder of stores.

    Interrupted at any moment, the same command continues; when the store is complete, it says so.
    Several GPUs: torchrun --nproc-per-node N -m cpsae extract ...
    """
    from cpsae.workers import Worker

    with usage_errors():
        worker = Worker.from_environment()
    with terminal_of(values) as terminal:
        if worker.count > 1:
            terminal.note(f"this is {worker}")
        terminal.quiet |= not worker.is_leader  # one bar and one result, of however many
        from cpsae.config import ExtractSettings
        from cpsae.errors import SettingsError
        from cpsae.urls import store_place

        options = given(OPTIONS, values)
        flags = {
            "keep_bos": keep_bos,
            "special_tokens": special_tokens,
            "trust_remote_code": trust_remote_code,
        }
        options |= {key: True for key, value in flags.items() if value}
        with usage_errors():
            store_place(options.get("store", ""), "--store", SettingsError)
        settings = resolve_settings(ExtractSettings, options, recipe=recipe).settings

        from cpsae.stages.extract import extract

        done = extract(settings, terminal.on_event, worker, fresh=not resume)
        if not worker.is_leader:
            return
        paths = {"path": str(done.path), "stores": [str(path) for path in done.stores]}
        if not terminal.result({**done.__dict__, **paths, "complete": True}):
            each = "" if len(done.stores) == 1 else f" in each of {len(done.stores)} stores"
            terminal.print(
                f"{done.path}: {done.vectors:,} vectors and {done.evaluation_vectors:,} held out"
                f"{each}, d = {done.d}; next: cpsae fit --store {shlex.quote(str(done.stores[0]))}"
            )
