"""On which device, and in which floating-point type, a model or an autoencoder runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cpsae.config.base import DEVICE_NAME
from cpsae.errors import ModelError
from cpsae.memory import Room, main_memory
from cpsae.tensors import TORCH_DTYPES


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:I` stands for.

    `auto` takes a GPU where there is one. Without an index, the process numbered `local_rank` on
    its machine takes GPU `local_rank` modulo their number. Raises ModelError where the name is
    malformed, CUDA is asked for and absent, or there is no GPU of that index.
    """
    if not DEVICE_NAME.fullmatch(name):
        raise ModelError(f"device '{name}': expected auto, cpu, cuda or cuda:I, like cuda:0")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise ModelError(f"device '{name}': torch sees no CUDA GPU; take cpu, or {_why_no_cuda()}")
    index = torch.device("cuda" if name == "auto" else name).index
    if index is None:
        index = local_rank % available
    if index >= available:
        raise ModelError(f"device '{name}': there are {available} GPUs, cuda:0 is the first")
    torch.cuda.set_device(index)  # kernels from outside torch run on the current device
    return torch.device("cuda", index)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type that `auto`, `bfloat16`, `float16` or `float32` stands for on this device.

    `auto`: bfloat16 on a GPU, float32 elsewhere. Raises ModelError for any other name.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in TORCH_DTYPES:
        raise ModelError(f"dtype '{name}': expected auto, {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


@contextmanager
def threads_put_back() -> Iterator[None]:
    """Put back torch's thread count, which a continued run or store sets for itself."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch was refused memory; on a CPU the text alone tells."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "install a build of torch with CUDA"
    return "check the driver with nvidia-smi"


def free_memory(device: torch.device) -> Room | None:
    """What is free on a GPU, or of main memory; None where the system does not say."""
    if device.type == "cuda":
        return Room(int(torch.cuda.mem_get_info(device)[0]))
    return main_memory()
