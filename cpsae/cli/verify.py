"""`cpsae verify`: every file of a store."""

from pathlib import Path
from typing import Any

import click

from cpsae.cli.options import output_options, terminal_of


@click.command(short_help="Check every chunk of a store.")
@click.argument("store", metavar="STORE")
@click.option("--repair", is_flag=True, help="Remove damaged chunks, so that extract makes them.")
@output_options
def command(store: str, repair: bool, **values: Any) -> None:
    """Read every chunk of STORE: presence, size, checksum, finite values, right statistics.

    Names each bad or missing file by its path in the store; exits 0 when all is well, else 1.
    """
    with terminal_of(values) as terminal:
        from cpsae.events import Advanced, Finished, Started
        from cpsae.store import verify_store
        from cpsae.store.repair import remove_damaged, why_not

        started = False

        def on_progress(done: int, total: int) -> None:
            nonlocal started
            if not started:
                terminal.on_event(Started("verify", total, "chunk", kept=False))
                started = True
            terminal.on_event(Advanced(done))

        found = verify_store(store, on_progress)
        terminal.on_event(Finished())
        keys = [problem.key for problem in found.problems]
        repaired = repair and bool(keys)
        removed = remove_damaged(Path(store), keys) if repaired else []
        content = {
            "store": store,
            "complete": found.complete,
            "files": found.files,
            "problems": [problem._asdict() for problem in found.problems],
            "absent": found.absent,
            "removed": removed,
        }
        if not terminal.result(content):
            for problem in found.problems:
                terminal.print(f"{problem.key}: {problem.what}")
            reason = why_not(Path(store), keys) if keys and not repaired else None
            terminal.print(_verdict(store, found, repaired, reason))
        click.get_current_context().exit(1 if found.problems else 0)


def _verdict(store: str, found: Any, repaired: bool, reason: str | None) -> str:
    damaged = f"{store}: {len(found.problems)} of {found.files} files are damaged"
    if repaired:
        return (
            f"{damaged}: they are removed, or made again where the rest gives them; if chunks are "
            "gone, the same `cpsae extract` command again computes them"
        )
    if found.problems and reason is not None:
        return f"{damaged}; {reason}"
    if found.problems:
        return f"{damaged}; --repair removes them, then `cpsae extract` computes them again"
    if found.absent:
        return (
            f"{store}: {found.files} files are well; unfinished, {len(found.absent)} chunks to go"
        )
    return f"{store}: all {found.files} files are well"
