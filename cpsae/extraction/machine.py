"""What computes the rows: the device as a store records it, and the threads that bytes hang on."""

import os
import subprocess
import sys

import torch

from cpsae.events import Note, OnEvent
from cpsae.store.layout import DeviceRecord
from cpsae.workers import Worker


def device_record(device: torch.device, threads: int | None) -> DeviceRecord:
    """The device as a store records it."""
    if device.type == "cuda":
        return DeviceRecord(kind="cuda", name=torch.cuda.get_device_name(device), threads=None)
    capability = torch.backends.cpu.get_cpu_capability()
    return DeviceRecord(kind="cpu", name=capability, threads=threads)


def choose_threads(device: torch.device, worker: Worker) -> int | None:
    """torch's threads on a CPU (None on a GPU). torchrun gives each of several workers one thread
    unless told otherwise; the count of a single worker is taken all the same, because the last
    bits of a product depend on it and must not depend on the number of workers."""
    if device.type != "cpu":
        return None
    if worker.count > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        return _threads_of_a_single_worker()
    return torch.get_num_threads()


def set_threads(begun: DeviceRecord | None, on_event: OnEvent) -> None:
    """Take as many threads as the store's rows are computed with."""
    threads = begun and begun.threads
    if threads and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
        on_event(Note(f"using {threads} threads, as the store's bytes need", "detail"))


def warn_of_other_device(
    device: torch.device, begun: DeviceRecord | None, on_event: OnEvent
) -> None:
    """Where it is not the one that the store was begun on."""
    now = device_record(device, None)
    if begun and begun.name != now.name:
        on_event(
            Note(
                f"begun on {begun.name}, continued on {now.name}: the new chunks may "
                "differ in the last bits from what the old device would give",
                "warning",
            )
        )


def _threads_of_a_single_worker() -> int:
    """What torch takes by itself, asked of itself: cores or hardware threads, it depends on how it
    was built."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    question = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    return int(subprocess.run(question, env=environment, capture_output=True, check=True).stdout)
