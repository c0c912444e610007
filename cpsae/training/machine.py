"""What the bits of a result depend on beside settings and code: device, threads, CPU."""

from collections.abc import Mapping
from typing import Any

import torch

from cpsae.events import Note, OnEvent


def machine_of(device: torch.device) -> dict[str, Any]:
    """As config.json and checkpoints record it."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device)}
    return {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def keep_bits(machine: Mapping[str, Any], device: torch.device, on_event: OnEvent) -> None:
    """Go on as on `machine`: with its thread count, and a word where equal bits cannot be kept."""
    threads = int(machine.get("threads", torch.get_num_threads()))
    if device.type == "cpu" and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
        on_event(Note(f"using {threads} threads, as the run was begun with"))
    now = machine_of(device)
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
