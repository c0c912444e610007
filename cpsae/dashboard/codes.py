"""Which latents fire in which rows: one pass over rows, kept as a sparse table.

A latent fires in a row where it is over 1 % of the row's largest, as `l0_eff` counts it. Names: B
rows of a batch, M enabled features, E entries (pairs of a row and a latent that fires in it).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cpsae.dashboard.rows import Ints, SeenRows
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.tensors import tensor_of

EFFECTIVE = 0.01
"""The share of its row's largest latent above which one fires."""
_MOST_ENTRIES = 1 << 25
"""8 bytes each: where so many are found, no further row is looked at."""
_BATCH_ROWS, _BATCH_LATENTS = 2048, 1 << 24
_SUPPRESSED = 16
"""Of a row, those that are the largest before the competition."""


@dataclass(frozen=True)
class Table:
    """Lists of features, one a row."""

    starts: Ints
    """(rows + 1,), where the list of each row begins."""
    features: npt.NDArray[np.int32]

    @property
    def rows(self) -> Ints:
        """(E,), the row of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True)
class Codes:
    """What an autoencoder makes of rows."""

    m: int
    rows: int
    """Looked at, those over the bound of norms included: they have no entries."""
    counted: int
    """Not over the bound."""
    fired: Table
    values: npt.NDArray[np.float32]
    """(E,), of `fired`."""
    suppressed: Table
    """Latents above 0 before the competition that do not fire after it: of each row the 16 that
    were the largest."""


@torch.no_grad()
def encode_rows(
    sae: SparseAutoencoder, seen: SeenRows, norm_bound: float, on_event: OnEvent = ignore
) -> Codes:
    """One pass over the rows, which ends early where their entries fill the memory that a table
    may take."""
    m = sae.n_enabled
    size = max(1, min(_BATCH_ROWS, _BATCH_LATENTS // m))
    fired, values, suppressed = _Lists(), [np.empty(0, np.float32)], _Lists()
    counted = rows = 0
    on_event(Started("look at features", seen.rows, "row", kept=False))
    for first, batch, norms in seen.batches(size):
        counts = norms <= np.float64(norm_bound)
        latents = sae.latents(tensor_of(batch).to(sae.W_enc.device).float())
        raw, a = latents.raw.cpu(), latents.competed.cpu()
        fires = _fires(a) & torch.from_numpy(counts)[:, None]
        values.append(a[fires].numpy())
        fired.add(fires)
        suppressed.add(_suppressed(raw, a, fires))
        counted += int(counts.sum())
        rows = first + len(batch)
        on_event(Advanced(rows))
        if fired.entries >= _MOST_ENTRIES:
            break
    on_event(Finished())
    return Codes(m, rows, counted, fired.table(), np.concatenate(values), suppressed.table())


def _fires(a_BM: Tensor) -> Tensor:
    sizes = a_BM.abs()
    return sizes > EFFECTIVE * sizes.amax(1, keepdim=True)


def _suppressed(raw_BM: Tensor, a_BM: Tensor, fires_BM: Tensor) -> Tensor:
    """Whether a latent is among those that a row suppresses; a row that does not count suppresses
    none."""
    off = (raw_BM > 0) & (a_BM < raw_BM) & ~fires_BM & fires_BM.any(1, keepdim=True)
    if not off.any():
        return off
    k = min(_SUPPRESSED, raw_BM.shape[1])
    largest = raw_BM.masked_fill(~off, 0).topk(k, dim=1).indices
    return torch.zeros_like(off).scatter_(1, largest, True) & off


class _Lists:
    """A table as it grows."""

    def __init__(self) -> None:
        self.entries = 0
        self._counts = [np.zeros(1, np.int64)]
        self._features = [np.empty(0, np.int32)]

    def add(self, marked_BM: Tensor) -> None:
        rows, features = marked_BM.nonzero(as_tuple=True)
        self._counts.append(np.bincount(rows.numpy(), minlength=len(marked_BM)))
        self._features.append(features.numpy().astype(np.int32))
        self.entries += len(features)

    def table(self) -> Table:
        return Table(np.cumsum(np.concatenate(self._counts)), np.concatenate(self._features))
