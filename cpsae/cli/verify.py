"""`cpsae verify`: every file of a store, or of a folder of stores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import output_options, terminal_of

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.extraction.recompute import Recomputed
    from cpsae.stages.repair import Repair


@click.command(short_help="Check every chunk of a store.")
@click.argument("store", metavar="STORE")
@click.option("--repair", is_flag=True, help="Remove damaged chunks, so that extract makes them.")
@click.option(
    "--model",
    metavar="ID|PATH",
    is_flag=False,
    flag_value="store",
    help="Compute damaged chunks again here and now, with this language model: a hub name, local "
    "folder or .gguf file; without a value, the one that the store was made with.",
)
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a model on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the model brings along.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Of the model: auto, cpu, cuda or cuda:I.",
)
@output_options
def command(store: str, repair: bool, **values: Any) -> None:
    """Read every chunk of STORE: presence, size, checksum, finite values, right statistics.

    STORE may be a folder of stores, as several sites make it. Names each bad or missing file by its
    path in the store; exits 0 when all is well, or --repair --model has made it so, else 1.
    """
    if values["model"] is not None and not repair:
        raise click.UsageError("--model: computes damaged chunks again; give --repair too")
    with terminal_of(values) as terminal:
        from cpsae.store import stores_in

        several = stores_in(store)
        paths = [str(path) for path in several] or [store]
        repairs = {
            path: _repaired(terminal, path, values) if repair else _seen(terminal, path)
            for path in paths
        }
        contents = [_content(path, one) for path, one in repairs.items()]
        if not terminal.result({"stores": contents} if several else contents[0]):
            for path, one in repairs.items():
                for problem in one.found.problems:
                    terminal.print(f"{problem.key}: {problem.what}")
                terminal.print(_verdict(path, one))
        damaged = any(one.found.problems and not one.computed for one in repairs.values())
        click.get_current_context().exit(1 if damaged else 0)


def _seen(terminal: "Terminal", store: str) -> "Repair":
    from cpsae.stages.repair import inspect

    return inspect(store, terminal.on_event)


def _repaired(terminal: "Terminal", store: str, values: Mapping[str, Any]) -> "Repair":
    from cpsae.stages.repair import repair

    return repair(
        store,
        values["model"],
        revision=values["revision"],
        trust_remote_code=values["trust_remote_code"],
        device=values["device"],
        on_event=terminal.on_event,
    )


def _content(store: str, repair: "Repair") -> dict[str, Any]:
    """What is to be said of one store to programs."""
    content = {
        "store": store,
        "complete": repair.found.complete,
        "files": repair.found.files,
        "problems": [problem._asdict() for problem in repair.found.problems],
        "absent": repair.found.absent,
        "removed": repair.removed,
    }
    if repair.computed is not None:
        content["computed"] = [chunk.as_json() for chunk in repair.computed]
    return content


def _verdict(store: str, repair: "Repair") -> str:
    found = repair.found
    damaged = f"{store}: {len(found.problems)} of {found.files} files are damaged"
    if found.problems and repair.computed is not None:
        return f"{damaged}: {_computed(repair.computed)}"
    if found.problems and repair.removed:
        return (
            f"{damaged}: they are removed, or made again where the rest gives them; if chunks are "
            "gone, the same `cpsae extract` command again computes them"
        )
    if found.problems and repair.hindrance is not None:
        return f"{damaged}; {repair.hindrance}"
    if found.problems:
        return (
            f"{damaged}; --repair removes them, then `cpsae extract` computes them again, or "
            "--repair --model at once"
        )
    if found.absent:
        return (
            f"{store}: {found.files} files are well; unfinished, {len(found.absent)} chunks to go"
        )
    return f"{store}: all {found.files} files are well"


def _computed(chunks: "Sequence[Recomputed]") -> str:
    """How near the new chunks are to the old ones."""
    if not chunks:
        return "they are made again from the rows"
    text = f"{len(chunks)} chunks are computed again"
    same = sum(chunk.same is True for chunk in chunks)
    others = [
        c.norm_difference for c in chunks if c.same is False and c.norm_difference is not None
    ]
    untold = len(chunks) - same - len(others)
    if same:
        text += f", {same} as they were, byte for byte"
    if others:
        text += f", {len(others)} with norms that differ by up to {max(others):.1e} from the old"
    if untold:
        text += f", {untold} of which nothing was left to compare with"
    return text
