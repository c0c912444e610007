"""Starting the processes that train together, over gloo on the CPU."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ENOUGH = 120
"""Seconds for any of it, also on a busy machine."""


def start(
    arguments: Sequence[object], count: int = 2, folders: Sequence[Path] = ()
) -> list[subprocess.Popen[str]]:
    """`python` with these arguments, as torchrun starts it: so many times, each in its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared: dict[str, object] = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "OMP_NUM_THREADS": 1,
    }
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(count):
        own = {**shared, "RANK": rank, "LOCAL_RANK": rank} if count > 1 else {"OMP_NUM_THREADS": 1}
        started.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **{name: str(value) for name, value in own.items()}},
                cwd=folders[rank] if folders else None,
            )
        )
    return started


def ended(started: Sequence[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """What each came to."""
    done = []
    try:
        for process in started:
            out, err = process.communicate(timeout=ENOUGH)
            done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in started:
            process.kill()
    return done
