"""Memory that a command frees is not mapped afresh, which page faults show."""

import ctypes
import os
import subprocess
import sys

import pytest

from cpsae.cli.memory import keep_freed_blocks

PROGRAM = """
import resource, torch
from cpsae.cli.memory import keep_freed_blocks
{call}
def work():
    return [torch.full((16, 1 << 20), 1.0) for _ in range(3)]
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(os.confstr_names.get("CS_GNU_LIBC_VERSION") is None, reason="not glibc")
def test_blocks_are_used_again() -> None:
    """Five times three blocks of 64 MiB, in pages of 4 KiB or, where those are on, of 2 MiB."""
    afresh = faults("pass")
    assert afresh >= 5 * 3 * 32
    assert faults("keep_freed_blocks()") < 0.2 * afresh
    assert faults("keep_freed_blocks()", MALLOC_TOP_PAD_="0") > 0.8 * afresh  # one chose oneself


def test_another_c_library_is_left_alone(monkeypatch) -> None:
    class Other:
        gnu_get_libc_version = None

        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Other())
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    keep_freed_blocks()
