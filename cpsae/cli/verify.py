"""`cpsae verify`: every file of a store, or of a folder of stores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import output_options, terminal_of

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal


@click.command(short_help="Check every chunk of a store.")
@click.argument("store", metavar="STORE")
@click.option("--repair", is_flag=True, help="Remove damaged chunks, so that extract makes them.")
@output_options
def command(store: str, repair: bool, **values: Any) -> None:
    """Read every chunk of STORE: presence, size, checksum, finite values, right statistics.

    STORE may be a folder of stores, as several sites make it. Names each bad or missing file by its
    path in the store; exits 0 when all is well, else 1.
    """
    with terminal_of(values) as terminal:
        from cpsae.store import stores_in

        several = stores_in(store)
        found = [_verified(terminal, str(path), repair) for path in several or [Path(store)]]
        contents = [content for content, _ in found]
        if not terminal.result({"stores": contents} if several else contents[0]):
            for content, verdict in found:
                for problem in content["problems"]:
                    terminal.print(f"{problem['key']}: {problem['what']}")
                terminal.print(verdict)
        damaged = any(content["problems"] for content in contents)
        click.get_current_context().exit(1 if damaged else 0)


def _verified(terminal: "Terminal", store: str, repair: bool) -> tuple[dict[str, Any], str]:
    """What is to be said of one store, for programs and for people."""
    from cpsae.store import verify_store
    from cpsae.store.repair import remove_damaged, why_not

    found = verify_store(store, terminal.on_event)
    keys = [problem.key for problem in found.problems]
    repaired = repair and bool(keys)
    content = {
        "store": store,
        "complete": found.complete,
        "files": found.files,
        "problems": [problem._asdict() for problem in found.problems],
        "absent": found.absent,
        "removed": remove_damaged(Path(store), keys) if repaired else [],
    }
    reason = why_not(Path(store), keys) if keys and not repaired else None
    return content, _verdict(store, found, repaired, reason)


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
