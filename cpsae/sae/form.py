"""What a kind computes at inference, in terms that other programs have too.

Names: D dimensions, M enabled features, x (..., D) normalised rows, z = W_enc x + b_enc (..., M).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

FormName = Literal["relu", "topk", "jumprelu", "gated", "softmax", "lca"]

IN_UNITS = (
    *("b_enc", "b_gate", "b_mag", "b_dec"),
    *("threshold", "first_threshold", "temperature"),
)
"""Names, as files have them, of what is in the units of x in any form."""


@dataclass(frozen=True)
class Form:
    """How latents a (..., M) come from x:

    relu       a = ReLU(z)
    topk       ReLU(z) where it is among its row's `k` largest, else 0
    jumprelu   ReLU(z) where it is above `threshold` (M,), else 0
    gated      ReLU(exp(r_mag) W_enc x + b_mag) where W_enc x + b_gate > 0, else 0
    softmax    softmax(f / temperature) f, f = ReLU(z), `over` enabled features or active ones
    lca        jumprelu at `first_threshold`; what that leaves of x is projected on the decoder
               vectors, `inhibition` of it added to z, and jumprelu at `threshold` again

    All are homogeneous: with biases and levels c times as large, c x has the latents c a, and the
    reconstruction is c times as large too. So a scale of the rows can be folded away.
    """

    name: FormName
    levels: Mapping[str, Tensor] = field(default_factory=dict)
    """Biases (M,), thresholds (M,) or 0-d, a temperature 0-d: what is in the units of x."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What is in no units: tensors (M,), numbers, names."""
