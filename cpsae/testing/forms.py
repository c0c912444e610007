"""What the forms compute, plainly: for tests of what a kind says of itself."""

import torch
from torch import Tensor

from cpsae.sae.form import Form
from cpsae.sae.kind import Weights


def latents_of(form: Form, w: Weights, x: Tensor, scale: float = 1.0) -> Tensor:
    """x: (B, D) normalised rows, times `scale`; w: weights of the M enabled features -> (B, M),
    with all that is in the units of x times `scale` too."""
    levels = {name: (value * scale).to(x.dtype) for name, value in form.levels.items()}
    projected = x @ w["w_enc"].T
    if form.name == "gated":
        size: Tensor = (projected * form.fixed["r_mag"].exp() + levels["b_mag"]).relu()
        return size * (projected + levels["b_gate"] > 0)
    z = projected + w["b_enc"] * scale
    f = z.relu()
    if form.name == "topk":
        top = f.topk(form.fixed["k"])
        return torch.zeros_like(f).scatter(1, top.indices, top.values)
    if form.name == "softmax":
        counted = (f > 0) | (form.fixed["over"] == "enabled")
        scores = (f / levels["temperature"]).masked_fill(~counted, -1e38)
        return torch.softmax(scores, dim=1) * f
    if form.name == "lca":
        first = f * (f > levels["first_threshold"])
        rest = x - first @ w["w_dec"] - w["b_dec"] * scale
        f = (z + form.fixed["inhibition"] * rest @ w["w_dec"].T).relu()
    return f if form.name == "relu" else f * (f > levels["threshold"])
