"""What the bits of a result depend on beside settings and code: device, threads, CPU, processes."""

from collections.abc import Mapping
from typing import Any

import torch

from cpsae.events import Note, OnEvent


def machine_of(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """As config.json and checkpoints record it. processes: that share the batches."""
    shared = {"processes": processes} if processes > 1 else {}
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), **shared}
    return {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **shared,
    }


def keep_bits(
    machine: Mapping[str, Any], device: torch.device, on_event: OnEvent, processes: int = 1
) -> None:
    """Go on as on `machine`: with its thread count, and a word where equal bits cannot be kept."""
    before = int(machine.get("processes", 1))
    if processes != before:
        on_event(
            Note(
                f"begun by {before} processes that shared batches, now {processes}: the result is "
                "the same to rounding, not to the last bit"
            )
        )
        return
    threads = int(machine.get("threads", torch.get_num_threads()))
    if device.type == "cpu" and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
        on_event(Note(f"using {threads} threads, as the run was begun with"))
    now = machine_of(device, processes)
    changed = [
        f"{key} {before}, now {now.get(key)}"
        for key, before in machine.items()
        if now.get(key) != before
    ]
    if changed:
        on_event(
            Note(
                f"begun on another machine ({'; '.join(changed)}): the result may differ from an "
                "uninterrupted run's in the last bits",
                "warning",
            )
        )
