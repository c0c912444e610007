"""How the C library keeps the memory that a command frees.

glibc gives every block above 32 MiB back to the system at once, and maps it afresh, page by page
and zeroed, when the next update asks for as much again: in a step of a few such temporaries that
takes longer than the arithmetic. A command that trains keeps them instead.
"""

import ctypes
import os
import sys

_TRIM, _PAD, _MAPPED_FROM = -1, -2, -3
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of mallopt(3)."""
_KEPT = 1 << 30
"""Bytes: blocks below this are kept, and twice as much of free memory in all."""
_AT_ONCE = 1 << 26
"""Bytes that are asked of the system at a time."""


def keep_freed_blocks() -> None:
    """From now on blocks of up to 1 GiB are reused by this process; elsewhere than on glibc, and
    where the environment has asked for something itself, nothing is changed."""
    asked = os.environ
    if "GLIBC_TUNABLES" in asked or any(name.startswith("MALLOC_") for name in asked):
        return
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version") or not hasattr(libc, "mallopt"):
        return
    for option, value in ((_MAPPED_FROM, _KEPT), (_TRIM, 2 * _KEPT - 1), (_PAD, _AT_ONCE)):
        libc.mallopt(option, value)
