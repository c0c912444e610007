"""Several processes that train one autoencoder: when they can, and as what."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from cpsae.device import choose_device
from cpsae.errors import SettingsError
from cpsae.sae.group import ALONE, Group
from cpsae.training.settings import Split
from cpsae.training.shared_batch import SharedBatch
from cpsae.training.shared_dictionary import SharedDictionary
from cpsae.workers import Worker


@contextmanager
def joined(
    worker: Worker, device_name: str, batch_size: int, split: Split = "data"
) -> Iterator[Group]:
    """The group of all processes that were started together, which share batches of so many rows or
    the dictionary.

    Raises SettingsError where they cannot train together, GroupError where the others do not come.
    """
    if worker.count == 1:
        yield ALONE
        return
    _refuse(worker, device_name, batch_size, split)
    device = choose_device(device_name, worker.local_rank)
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(_threads())
    try:
        processes = (
            SharedDictionary(worker, device)
            if split == "features"
            else SharedBatch(worker, device, batch_size)
        )
        try:
            yield processes
        finally:
            processes.close()
    finally:
        torch.set_num_threads(threads)


def _refuse(worker: Worker, device_name: str, batch_size: int, split: Split) -> None:
    if split == "data" and batch_size < worker.count:
        raise SettingsError(
            f"batch_size {batch_size}: is below the number of processes ({worker.count}), and each "
            "needs a row; take a larger --batch-size or fewer processes"
        )
    if ":" in device_name:
        raise SettingsError(
            f"device '{device_name}': {worker.count} processes cannot share a GPU; take cuda, "
            "which gives each its own"
        )
    if not dist.is_available():
        raise SettingsError("this build of torch cannot join processes; start fit without torchrun")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise SettingsError(
            f"{worker}: cannot find the others without {' and '.join(missing)} in the environment; "
            "start them with torchrun, which sets both"
        )


def _threads() -> int:
    """torch's threads on a CPU whose cores processes share. torchrun asks for 1 where nobody asked
    for another number, so a 1 says nothing."""
    if os.environ.get("OMP_NUM_THREADS", "1") not in ("", "1"):
        return torch.get_num_threads()
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // here)
