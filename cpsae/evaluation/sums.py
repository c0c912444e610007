"""Sums over the rows of each unit, gathered without waiting for a GPU.

Names: B rows, U units, C columns.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpsae.evaluation.bootstrap import neighbours


class SumsByUnit:
    """A table (U, C) of float64 sums; of very many units, of groups of neighbours."""

    def __init__(self, units: int, columns: int) -> None:
        """units: how many there are."""
        self._group = neighbours(units)
        self._shape = (-(-units // self._group), columns)
        self._places: list[npt.NDArray[np.int64]] = []
        self._sums: list[Tensor] = []

    def add(
        self, units_B: npt.NDArray[np.int64], counted_B: npt.NDArray[np.bool_], values_BC: Tensor
    ) -> None:
        """Add the values of the rows that count to their units, whose numbers never fall."""
        groups = units_B // self._group
        places, lengths = np.unique(groups, return_counts=True)
        counted = torch.from_numpy(counted_B).to(values_BC.device)
        # not multiplied by 0: what does not count may be infinite
        kept = torch.where(counted[:, None], values_BC, 0.0)
        on_device = torch.from_numpy(lengths).to(values_BC.device)
        self._places.append(places)
        self._sums.append(torch.segment_reduce(kept, "sum", lengths=on_device, unsafe=True))

    def result(self) -> npt.NDArray[np.float64]:
        """(U, C) what all units come to."""
        table = np.zeros(self._shape)
        if self._sums:
            np.add.at(table, np.concatenate(self._places), torch.cat(self._sums).cpu().numpy())
        return table
