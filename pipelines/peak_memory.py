"""Run a command and print the peak of its private memory.

    python pipelines/peak_memory.py cpsae fit --store acts.zarr

Private is RssAnon of /proc: pages that a memory map of a file brings in do not count, since the
system takes them back when it needs them. Linux only.
"""

import subprocess
import sys
import time
from pathlib import Path

_SAMPLE_SECONDS = 0.02


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process now; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(sizes[0]) * 1024 if sizes else 0


def main() -> int:
    """Exit with the command's own exit code."""
    if len(sys.argv) < 2:
        print("usage: python pipelines/peak_memory.py COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    process = subprocess.Popen(sys.argv[1:])
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(_SAMPLE_SECONDS)
    print(f"peak private memory: {peak / 1e6:.0f} MB")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
