"""Where in a block its rows are taken: input, output, and what attention and the MLP add between.

    resid_pre + attn_out + mlp_out = resid_post

holds wherever a block adds to the residual stream, and the self-test checks it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cpsae.config.extraction import Point, Site
from cpsae.errors import ModelError
from cpsae.models.hooks import first_tensor

ADDED = ("attn_out", "mlp_out")
"""Points that are a part of the block, and not its input or output."""

_ATTENTION = ("self_attn", "self_attention", "attention", "attn", "temporal_block")
_MLP = ("mlp", "feed_forward", "ffn", "fc2", "mlp_block", "block_sparse_moe", "moe")
_NORMS_BEHIND = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""Norms that stand between attention or MLP and the sum: what they give is what is added. A norm
of the first name alone stands in front of the MLP (Llama)."""


class Parts(NamedTuple):
    """Names, within a block, of the modules whose output attention and the MLP add; "" where they
    are not found."""

    attention: str
    mlp: str
    norm_after_sum: bool
    """Whether the sum goes through a norm before it is the block's output (BERT), so that it is
    not the block's output itself."""


def find_parts(block: nn.Module, config: Any) -> Parts:
    """Find them in a block. Whether they give what is added shows when they run."""
    for attention, mlp in _NORMS_BEHIND:
        if hasattr(block, attention) and hasattr(block, mlp):
            return Parts(attention, mlp, False)
    inner = ("attention.output.dense", "output.dense")  # BERT and its kin, that norm the sum
    if all(_has(block, name) for name in inner):
        return Parts(*inner, True)
    attention = next((name for name in _ATTENTION if _has(block, name)), "")
    mlp = next((name for name in _MLP if _has(block, name)), "")
    return Parts(attention, mlp, getattr(config, "do_layer_norm_before", True) is False)


def check_sites(sites: Sequence[Site], blocks: Sequence[nn.Module], config: Any, name: str) -> None:
    """Raises ModelError, with the points that the model `name` has, where one of a site is not
    found; blocks may be on the meta device."""
    for site in sites:
        parts = find_parts(blocks[site.layer], config)
        lacking = {"attn_out": not parts.attention, "mlp_out": not parts.mlp}
        if lacking.get(site.point, False):
            raise ModelError(no_such_point(site, name, "no such module is found in its blocks"))


def no_such_point(site: Site, name: str, why: str) -> str:
    """What to say where a model has no such point."""
    return f"hook {site.point}: {name} has resid_pre and resid_post alone ({why}); take those"


class Tap:
    """Keeps what a block gives at one point. Rows are copied where they are seen: some blocks add
    in place to what a hook has seen."""

    def __init__(self, site: Site, block: nn.Module, config: Any) -> None:
        self.site = site
        self._rows: Tensor | None = None
        self._shape: torch.Size | None = None
        if site.point == "resid_post":
            block.register_forward_hook(self._keep)
            return
        block.register_forward_pre_hook(self._begin, with_kwargs=True)
        if site.point in ADDED:
            parts = find_parts(block, config)
            path = parts.attention if site.point == "attn_out" else parts.mlp
            block.get_submodule(path).register_forward_hook(self._keep)

    def take(self) -> Tensor:
        """Rows (B, T, d) of the pass that has run, given once. Raises ModelError where none came
        by: the module that was found is not the one that is run."""
        rows, self._rows = self._rows, None
        if rows is None:
            raise ModelError(f"layer {self.site.layer}: nothing comes by at {self.site.point}")
        return rows

    def _begin(self, _block: nn.Module, args: Any, kwargs: Any) -> None:
        given = [*args[:1], kwargs.get("hidden_states"), *kwargs.values()]
        hidden = next((v for v in given if isinstance(v, Tensor) and v.is_floating_point()), None)
        if hidden is None:
            return  # `take` says that nothing came by
        self._shape = hidden.shape
        if self.site.point == "resid_pre":
            self._rows = hidden.clone()

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        rows = first_tensor(output)
        if self._shape is not None and rows.numel() == self._shape.numel():
            rows = rows.reshape(self._shape)  # OPT's fc2 gives (B * T, d)
        self._rows = rows.clone()


def tap_all(sites: Sequence[Site], blocks: Sequence[nn.Module], config: Any) -> dict[Site, Tap]:
    """A tap at each site."""
    return {site: Tap(site, blocks[site.layer], config) for site in sites}


def sum_rule(rows: Mapping[Point, Tensor]) -> float:
    """By how much resid_pre + attn_out + mlp_out differs from resid_post, relative to its largest
    value; rows: of each point."""
    total = rows["resid_pre"].float() + rows["attn_out"].float() + rows["mlp_out"].float()
    expected = rows["resid_post"].float()
    return float((total - expected).abs().max() / expected.abs().max())


def _has(block: nn.Module, path: str) -> bool:
    try:
        block.get_submodule(path)
    except AttributeError:
        return False
    return True
