"""A store's rows in the memory of a GPU, where they fit: it trains faster than a disk feeds it."""

from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch

from cpsae.device import free_memory, is_out_of_memory
from cpsae.events import Note, OnEvent, ignore
from cpsae.memory import gigabytes
from cpsae.store.layout import Chunk
from cpsae.store.part import StorePart
from cpsae.tensors import TORCH_DTYPES, tensor_of

_SHARE = 0.9
"""Of the free memory, that rows and training may take together; evaluation has the rest."""


class ResidentRows:
    """The rows of a part on a device, each chunk from when it is first asked for."""

    def __init__(self, part: StorePart, device: torch.device) -> None:
        """Takes all of the memory at once. Raises RuntimeError where there is not so much."""
        ends = list(accumulate(chunk.n_rows for chunk in part.chunks))
        keys = [chunk.key for chunk in part.chunks]
        self._part = part
        self._starts = dict(zip(keys, [0, *ends], strict=False))
        self._there: set[str] = set()
        shape = (ends[-1], part.d)
        dtype = TORCH_DTYPES[part.manifest.store_dtype]
        self._rows = torch.empty(shape, dtype=dtype, device=device)

    def put(self, chunk: Chunk) -> int:
        """The number, on the device, of a chunk's first row; where it is not there yet it is read,
        which raises as `StorePart.rows`."""
        start = self._starts[chunk.key]
        if chunk.key not in self._there:
            rows = tensor_of(self._part.rows(chunk))
            self._rows[start : start + len(rows)] = rows
            self._there.add(chunk.key)
        return start

    def take(self, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        """The rows of these numbers, (len(numbers), d), on the device."""
        return self._rows.index_select(0, torch.from_numpy(numbers).to(self._rows.device))


def resident_rows(
    part: StorePart,
    device: torch.device,
    beside: int,
    processes: int = 1,
    on_event: OnEvent = ignore,
) -> ResidentRows | None:
    """None on a CPU, and where the rows do not fit beside so many bytes, which is said. processes:
    of the whole run, which may have to share its GPUs."""
    free = free_memory(device)
    if device.type == "cpu" or free is None:
        return None
    size = part.vectors * part.d * part.dtype.itemsize
    held = None
    of_each_gpu = -(-processes // max(1, torch.cuda.device_count()))
    if size + beside <= _SHARE * free.bytes / of_each_gpu:
        try:
            held = ResidentRows(part, device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
    place = f"kept in the memory of {device}" if held else "read from the store as they are needed"
    on_event(
        Note(f"rows ({gigabytes(size)}) are {place}; it has {gigabytes(free.bytes)} free", "detail")
    )
    return held
