"""How well latents are the true features: the measures of SynthSAEBench (arXiv 2602.14687).

Names: B rows, D dimensions, N latents, F true features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FILE = "truth.npz"


@dataclass(frozen=True)
class Truth:
    """The true features' directions, and which of them are on in each held-out row."""

    directions_FD: Tensor
    starts: npt.NDArray[np.int64]
    """(rows + 1,): where each row's features begin in `features`."""
    features: npt.NDArray[np.int32]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From the file that generate.py wrote in `folder`."""
        with np.load(folder / FILE) as file:
            return cls(torch.from_numpy(file["directions"]), file["starts"], file["features"])

    def save(self, folder: Path) -> None:
        """The inverse."""
        np.savez(
            folder / FILE,
            directions=self.directions_FD.numpy(),
            starts=self.starts,
            features=self.features,
        )

    @property
    def l0(self) -> float:
        """Mean number of true features a row."""
        return len(self.features) / (len(self.starts) - 1)

    def fires(self, first: int, rows: int) -> Tensor:
        """(rows, F) bool: which features are on in consecutive held-out rows."""
        starts = self.starts[first : first + rows + 1]
        row = np.repeat(np.arange(rows), np.diff(starts))
        on_BF = torch.zeros(rows, len(self.directions_FD), dtype=torch.bool)
        on_BF[row, self.features[starts[0] : starts[-1]].astype(np.int64)] = True
        return on_BF


def cosines(decoder_ND: Tensor, directions_FD: Tensor) -> Tensor:
    """(N, F) absolute cosines; a zero vector's are 0."""

    def unit(rows: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True)
        return rows.double() / norms.clamp_min(1e-8)

    cosines_NF = unit(decoder_ND) @ unit(directions_FD).T
    return cosines_NF.abs()


def mcc(cosines_NF: Tensor) -> float:
    """Mean cosine of the one-to-one matching for which it is largest. Where there are more of one
    side than of the other, what is left over counts nowhere."""
    latents, features = linear_sum_assignment(cosines_NF.numpy(), maximize=True)
    return float(cosines_NF[latents, features].mean())


def uniqueness(cosines_NF: Tensor) -> float:
    """How many features are some latent's nearest one, over the number of latents."""
    return len(set(cosines_NF.argmax(1).tolist())) / len(cosines_NF)


class Detection:
    """How well each latent's firing tells that of its nearest feature."""

    def __init__(self, cosines_NF: Tensor) -> None:
        self.nearest_N = cosines_NF.argmax(1)
        zeros = torch.zeros(len(cosines_NF), dtype=torch.int64)
        self.both_N, self.latent_N, self.feature_N = zeros.clone(), zeros.clone(), zeros.clone()
        self.rows = 0

    def update(self, a_BN: Tensor, on_BF: Tensor) -> None:
        """Take in latents and the features that are on in the same rows."""
        fires_BN, on_BN = a_BN != 0, on_BF[:, self.nearest_N]
        self.both_N += (fires_BN & on_BN).sum(0)
        self.latent_N += fires_BN.sum(0)
        self.feature_N += on_BN.sum(0)
        self.rows += len(a_BN)

    def result(self) -> dict[str, Any]:
        """Means over all latents, dead ones with 0; `dead` counts latents that never fired."""
        both = self.both_N.double()
        precision = both / self.latent_N.clamp_min(1)
        recall = both / self.feature_N.clamp_min(1)
        f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-300)
        return {
            "f1": float(f1.mean()),
            "precision": float(precision.mean()),
            "recall": float(recall.mean()),
            "l0": float(self.latent_N.sum()) / max(self.rows, 1),
            "dead": int((self.latent_N == 0).sum()),
        }
