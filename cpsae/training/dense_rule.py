"""The step rule of kinds with Eq. 2's loss whose latents look at one row at a time: the backward
pass by hand, five products into memory that is kept, and all else in blocks of rows that fit a
cache.

Names: B rows, b those of a block, D dimensions, M enabled features, g a gradient of the loss.
"""

from collections.abc import Iterator, Mapping
from typing import TypeGuard

import torch
from torch import Tensor

from cpsae.sae.affine import row_stride
from cpsae.sae.group import Group
from cpsae.sae.kind import Kind, Latents
from cpsae.sae.l1 import L1Kind
from cpsae.training.rules import Objective, Step, autograd

BLOCK = 2**17
"""Numbers of one array in a block: a few of them fit a core's second cache."""


def serves(kind: Kind) -> TypeGuard[L1Kind]:
    """Whether the kind says by hand what this rule needs."""
    return isinstance(kind, L1Kind) and kind.by_hand()


class Dense:
    """What `autograd` gives, to rounding, for the kinds that it `serves`; others, and products in
    bfloat16, are left to it.

    A step's tensors are overwritten by the next step of the same instance.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def __call__(self, objective: Objective, w: Mapping[str, Tensor], x_BD: Tensor) -> Step:
        """As every rule."""
        kind = objective.kind
        if not serves(kind) or objective.bfloat16:
            return autograd(objective, w, x_BD)
        with torch.no_grad():
            return self._step(objective, kind, w, x_BD)

    def _step(
        self, objective: Objective, kind: L1Kind, w: Mapping[str, Tensor], x_BD: Tensor
    ) -> Step:
        seen = kind.centred(w) if objective.center else w
        w_enc_MD, w_dec_MD = w["w_enc"].detach(), w["w_dec"].detach()
        batch, m, group = len(x_BD), len(w_enc_MD), kind.group
        n = group.features(kind.plan.n)
        f_BM = torch.mm(x_BD, w_enc_MD.T, out=self._latents("f", x_BD, m, n))
        a_BM = f_BM if kind.keeps_f else self._latents("a", x_BD, m, n)
        penalty = x_BD.new_zeros(())
        on_a = kind.settings.l1_on == "competed"
        for rows in _blocks(batch, m, group):
            f_bM = f_BM[rows].add_(seen["b_enc"].detach()).relu_()
            kind.compete_into(f_bM, a_BM[rows])
            penalty += (a_BM if on_a else f_BM)[rows].sum()
        penalty = group.sum_of_features(penalty / batch)
        x_hat_BD = torch.mm(a_BM, w_dec_MD, out=self._kept("x_hat", x_BD.shape, x_BD, x_BD.numel()))
        x_hat_BD += group.once(w["b_dec"].detach())
        x_hat_BD = group.sum_of_features(x_hat_BD)
        mse = kind.mse(x_BD, x_hat_BD)
        share = x_BD.shape[1] if kind.plan.mse_reduction == "mean" else 1
        g_x_hat_BD = x_hat_BD.sub_(x_BD).mul_(2 / (batch * share))
        gradients = self._gradients(kind, w, x_BD, (f_BM, a_BM), g_x_hat_BD)
        made = objective.uncentred(w, gradients)
        wanted = {name: made[name] for name, weight in w.items() if weight.requires_grad}
        return Step(wanted, Latents(raw=f_BM, competed=a_BM), kind.total(mse, penalty))

    def _gradients(
        self,
        kind: L1Kind,
        w: Mapping[str, Tensor],
        x_BD: Tensor,
        latents: tuple[Tensor, Tensor],
        g_x_hat_BD: Tensor,
    ) -> dict[str, Tensor]:
        """Of all weights, frozen ones too where they cost nothing."""
        f_BM, a_BM = latents
        batch, d, group = len(x_BD), kind.plan.d, kind.group
        n = group.features(kind.plan.n)
        kept = self._latents("g", x_BD, f_BM.shape[1], n)
        g_BM = torch.mm(g_x_hat_BD, w["w_dec"].detach().T, out=kept)
        on_a, each = kind.settings.l1_on == "competed", kind.settings.l1 / len(x_BD)
        g_b_enc_M = torch.zeros_like(w["b_enc"])
        for rows in _blocks(batch, f_BM.shape[1], group):
            f_bM, g_bM = f_BM[rows], g_BM[rows]
            if on_a:
                g_bM += each
            kind.pull_back(f_bM, a_BM[rows], g_bM)
            if not on_a:
                g_bM += each
            torch.ops.aten.threshold_backward.grad_input(g_bM, f_bM, 0, grad_input=g_bM)
            g_b_enc_M += g_bM.sum(0)
        made = {"b_enc": g_b_enc_M, "b_dec": group.once(g_x_hat_BD.sum(0))}
        for name, left_BM, right_BD in (("w_enc", g_BM, x_BD), ("w_dec", a_BM, g_x_hat_BD)):
            if w[name].requires_grad:
                kept = self._kept(f"g_{name}", w[name].shape, x_BD, n * d)
                made[name] = torch.mm(left_BM.T, right_BD, out=kept)
        return made

    def _latents(self, name: str, x_BD: Tensor, m: int, n: int) -> Tensor:
        """(B, M), in rows that products write fast."""
        stride = row_stride(m)
        return self._kept(name, (len(x_BD), stride), x_BD, len(x_BD) * row_stride(n))[:, :m]

    def _kept(self, name: str, shape: tuple[int, ...], like: Tensor, most: int) -> Tensor:
        """Memory of this name, enough for so many numbers, whatever is enabled now."""
        held = self._memory.get(name)
        if held is None or held.numel() < most or held.dtype != like.dtype:
            held = self._memory[name] = like.new_empty(most)
        return held[: torch.Size(shape).numel()].view(shape)


def _blocks(batch: int, m: int, group: Group) -> Iterator[slice]:
    """All rows at once where a row's features are asked of other processes."""
    rows = batch if group.splits else max(1, BLOCK // m)
    return (slice(first, first + rows) for first in range(0, batch, rows))
