"""What an encoder gives."""

from typing import NamedTuple

from torch import Tensor


class Latents(NamedTuple):
    """Encoder outputs before and after competition, each (..., M)."""

    raw: Tensor
    """f = ReLU(pre-activations)."""
    competed: Tensor
    """a, what the decoder gets."""
    pre: Tensor | None = None
    """Pre-activations before the ReLU, where the kind's loss needs them."""
    kept: Tensor | None = None
    """The values that a kind which counts latents has kept, in any shape and order."""
    gate: Tensor | None = None
    """1 where a latent is on, else 0, where the kind's loss has a gradient for that."""
    entries: Tensor | None = None
    """(E,) int64, row * M + feature of every latent that may not be 0, each once, in any order,
    where choosing them gave that list."""

    def detached(self) -> "Latents":
        """The same values without their history."""
        return Latents(*(None if t is None else t.detach() for t in self))  # type: ignore[arg-type]

    def fired(self) -> Tensor:
        """(M,) whether a row of the batch has the latent above 0."""
        a = self.competed.detach()
        if self.entries is None:
            return (a > 0).any(dim=0)
        features, values = self.entries % a.shape[1], a.flatten()[self.entries]
        return a.new_zeros(a.shape[1]).scatter_reduce(0, features, values, "amax") > 0
