"""What the bits of a result depend on beside settings and code: device, threads, CPU, processes."""

from collections.abc import Mapping
from typing import Any

import torch

from cpsae.events import Note, OnEvent
from cpsae.sae.group import ALONE, Group


def machine_of(device: torch.device, group: Group = ALONE) -> dict[str, Any]:
    """As config.json and checkpoints record it. group: the processes that train together."""
    shared: dict[str, Any] = {"processes": group.size} if group.size > 1 else {}
    shared |= {"split": "features"} if group.splits else {}
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), **shared}
    return {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **shared,
    }


def keep_bits(
    machine: Mapping[str, Any], device: torch.device, on_event: OnEvent, group: Group = ALONE
) -> None:
    """Go on as on `machine`: with its thread count, and a word where equal bits cannot be kept."""
    now = machine_of(device, group)
    if _processes(machine) != _processes(now):
        on_event(
            Note(
                f"begun by {_processes(machine)}, now {_processes(now)}: the result is the same to "
                "rounding, not to the last bit"
            )
        )
        return
    threads = int(machine.get("threads", torch.get_num_threads()))
    if device.type == "cpu" and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
        on_event(Note(f"using {threads} threads, as the run was begun with"))
    now = machine_of(device, group)
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


def _processes(machine: Mapping[str, Any]) -> str:
    count = int(machine.get("processes", 1))
    if count == 1:
        return "1 process"
    return f"{count} processes that share {'features' if 'split' in machine else 'batches'}"
