"""The step rule of kinds that keep few latents: the encoder's product is the only dense one.

What is not kept is 0, so the decoder and the whole backward pass are sums over the kept latents
alone (as in Gao et al. 2024, arXiv 2406.04093, section on sparse kernels), here in torch's
`embedding_bag`.

Names: B rows, D dimensions, M enabled features, E kept latents, g a gradient of the loss.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cpsae.sae.group import Group
from cpsae.sae.kind import Latents
from cpsae.sae.losses import Loss
from cpsae.training.rules import Objective, Step, autograd

PAYS_BELOW = 0.12
"""Share of kept latents above which dense products are faster, on CPUs."""


def sparse(objective: Objective, w: Mapping[str, Tensor], x_BD: Tensor) -> Step:
    """What `autograd` gives, to rounding, for kinds that list their entries; others are left to it,
    and so are a batch with too many entries and a loss that looks at latents in another way than
    at a, the gate and pre-activations."""
    with torch.no_grad():
        latents = objective.encode(w, x_BD)
        entries = objective.kind.entries(w, latents)
    if entries is None or _are_many(entries, latents.competed, objective.kind.group):
        return autograd(objective, w, x_BD)
    latents = latents._replace(entries=entries)
    kept = _Kept.of(entries, latents.competed)
    seen = Latents(*map(_leaf, latents))  # type: ignore[arg-type]
    values_E = kept.values.requires_grad_()
    group = objective.kind.group
    of_features = group.sum_of_features(kept.decoded(values_E, w["w_dec"].detach()))
    x_hat_BD = of_features + w["b_dec"].detach()
    loss = objective.loss(w, x_BD, seen, x_hat_BD)
    names = [name for name, weight in w.items() if weight.requires_grad]
    of_latents = [t for t in seen if t is not None and t.requires_grad]
    found = torch.autograd.grad(
        loss.total, [x_hat_BD, values_E, *of_latents, *(w[n] for n in names)], allow_unused=True
    )
    g_x_hat, g_values, *others = found
    g_latents = {id(t): g for t, g in zip(of_latents, others, strict=False)}
    g_a, g_pre = g_latents.pop(id(seen.competed)), g_latents.pop(id(seen.pre), None)
    g_gate = g_latents.pop(id(seen.gate), None)
    if any(g is not None for g in g_latents.values()):
        return autograd(objective, w, x_BD)
    if g_a is not None:
        g_values = g_values + g_a[kept.rows, kept.features]
    g_gate = None if g_gate is None else g_gate[kept.rows, kept.features]
    gradients = dict(zip(names, others[len(of_latents) :], strict=True))
    with torch.no_grad():
        pull = objective.kind.pull_entries
        g_kept, of_kind = pull(w, latents, kept.entries, g_values, g_gate)
        made = {**_gradients(objective, w, x_BD, kept, g_x_hat, g_kept, g_pre), **of_kind}
    for name, of_loss in gradients.items():
        own = made.get(name, torch.zeros_like(w[name]))
        gradients[name] = own if of_loss is None else own.add_(of_loss)
    parts = {name: part.detach() for name, part in loss.parts.items()}
    return Step(gradients, latents.detached(), Loss(loss.total.detach(), parts))


def _are_many(entries: Tensor, a_BM: Tensor, group: Group) -> bool:
    """In the group's batch: all its processes go the same way, or they would wait for each other's
    answers in encoding and in the loss."""
    most = PAYS_BELOW * group.rows(len(a_BM)) * group.whole(a_BM.shape[1])
    return group.count(len(entries)) > most


class _Kept(NamedTuple):
    """Kept latents, by row and by feature."""

    entries: Tensor
    """(E,) sorted: by row, then by feature."""
    values: Tensor
    """(E,) float32 or float64."""
    rows: Tensor
    features: Tensor
    row_starts: Tensor
    """(B,) where each row's begin."""
    by_feature: Tensor
    """(E,) their order by feature, then by row."""
    feature_starts: Tensor
    """(M,) where each feature's begin in that order."""

    @classmethod
    def of(cls, entries: Tensor, a_BM: Tensor) -> "_Kept":
        batch, m = a_BM.shape
        entries = entries.sort().values
        rows = torch.div(entries, m, rounding_mode="floor")
        features = entries - rows * m
        values = a_BM.flatten()[entries]
        ordered, by_feature = features.sort(stable=True)
        return cls(
            entries,
            values if values.dtype == torch.float64 else values.float(),
            rows,
            features,
            torch.searchsorted(rows, torch.arange(batch, device=rows.device)),
            by_feature,
            torch.searchsorted(ordered, torch.arange(m, device=rows.device)),
        )

    def decoded(self, values_E: Tensor, w_dec_MD: Tensor) -> Tensor:
        """(B, D) each row's sum of decoder rows."""
        return F.embedding_bag(
            self.features, w_dec_MD, self.row_starts, mode="sum", per_sample_weights=values_E
        )

    def of_each_feature(self, values_E: Tensor, rows_BD: Tensor) -> Tensor:
        """(M, D) for each feature the sum of the batch's rows that keep it."""
        rows, values = self.rows[self.by_feature], values_E[self.by_feature]
        return F.embedding_bag(
            rows, rows_BD, self.feature_starts, mode="sum", per_sample_weights=values
        )


def _gradients(
    objective: Objective,
    w: Mapping[str, Tensor],
    x_BD: Tensor,
    kept: _Kept,
    g_x_hat_BD: Tensor,
    g_kept_E: Tensor,
    g_pre_BM: Tensor | None,
) -> dict[str, Tensor]:
    """Of the weights, by way of x_hat, of the kept pre-activations, and of others where the loss
    looks at some."""
    x_BD = x_BD.to(g_kept_E.dtype)
    g_w_enc = kept.of_each_feature(g_kept_E, x_BD)
    g_b_enc = torch.zeros_like(w["b_enc"]).index_add_(0, kept.features, g_kept_E)
    if g_pre_BM is not None:
        touched = (g_pre_BM != 0).any(dim=0).nonzero().squeeze(1)
        of_touched = g_pre_BM[:, touched].to(x_BD.dtype)
        g_w_enc[touched] += of_touched.T @ x_BD
        g_b_enc[touched] += of_touched.sum(0)
    made = {
        "w_enc": g_w_enc,
        "b_enc": g_b_enc,
        "w_dec": kept.of_each_feature(kept.values, g_x_hat_BD),
        "b_dec": objective.kind.group.once(g_x_hat_BD.sum(0)),
    }
    return objective.uncentred(w, made)


def _leaf(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_()
