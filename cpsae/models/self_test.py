"""Checking the truncated model against the whole one, before hours are spent on it."""

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpsae.config.extraction import POINTS, Site
from cpsae.errors import ModelError, NonFiniteError
from cpsae.models.guard import model_errors
from cpsae.models.hooks import first_tensor
from cpsae.models.loading import load_base_model
from cpsae.models.sites import ADDED, find_parts, no_such_point, sum_rule, tap_all
from cpsae.models.source import ModelSource
from cpsae.models.truncated import TruncatedModel

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
"""Largest difference that is borne, relative to the largest value."""
OUTLIER = 10.0
"""A position is an outlier above this many times the median norm."""


@dataclass(frozen=True)
class SelfTest:
    """How the truncated model compares with the whole one, and what its activations look like."""

    bit_equal: bool
    largest_difference: float
    """Largest absolute difference over the largest absolute value."""
    first_norm: float
    """Median norm at position 0 (the beginning-of-sequence token)."""
    median_norm: float
    """Of all other positions."""
    first_ratio: float
    """first_norm / median_norm."""
    n_outliers: int
    """Positions but the first whose norm is over 10 times the median."""


def self_test(truncated: TruncatedModel, source: ModelSource, tokens: Tensor) -> SelfTest:
    """Run tokens (T,) or (B, T), T at least 2, through the truncated and the whole model, and
    compare every site; where parts of blocks are tapped, check that they sum to the block's output.

    The whole model is loaded for this alone, beside the truncated one, and freed. Raises
    NonFiniteError where activations hold NaN or Inf, ModelError where the two, or the two sides of
    the sum, differ by more than TOLERANCE. The figures of norms are those of the last site.
    """
    tokens = tokens.reshape(-1, tokens.shape[-1])
    with model_errors(source.name, "running its first blocks"):
        found = truncated.rows(tokens)
    for site, rows in found.items():
        _refuse_non_finite(truncated, site, rows, tokens)
    expected = _whole_model(truncated, source, tokens)
    tolerance = TOLERANCE[truncated.dtype]
    largest = 0.0
    for site, rows in found.items():
        difference = _difference(rows, expected[site])
        largest = max(largest, difference)
        if not difference <= tolerance:
            raise ModelError(
                f"{_name(truncated, site)}: the truncated model differs from the whole one by "
                f"{difference:.2g} of the largest value (tolerance {tolerance:.2g}); do not use "
                "it: this architecture, or this version of transformers, is not cut as it should be"
            )
    for site in found:
        if site.point in ADDED:
            _check_sum(truncated, site, expected, tolerance)
    equal = all(torch.equal(rows, expected[site]) for site, rows in found.items())
    return SelfTest(equal, largest, *_norms(found[truncated.sites[-1]]))


def _name(truncated: TruncatedModel, site: Site) -> str:
    point = "" if site.point == "resid_post" else f" ({site.point})"
    return f"layer {site.layer} of {truncated.description.name}{point}"


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())


def _refuse_non_finite(truncated: TruncatedModel, site: Site, rows: Tensor, tokens: Tensor) -> None:
    bad = int((~torch.isfinite(rows)).any(dim=-1).sum())
    if bad:
        remedy = "take --dtype float32"
        if truncated.dtype == torch.float16:
            remedy = "float16 ends at 65504: run again with --dtype bfloat16 (or float32)"
        raise NonFiniteError(
            f"{_name(truncated, site)}: NaN or Inf at {bad} of {tokens.numel()} positions in "
            f"{truncated.dtype}; {remedy}, with --fresh where the store was begun"
        )


def _check_sum(
    truncated: TruncatedModel, site: Site, whole: dict[Site, Tensor], tolerance: float
) -> None:
    text = truncated.skeleton.model.get_submodule(truncated.skeleton.anatomy.text)
    blocks = truncated.skeleton.model.get_submodule(truncated.skeleton.anatomy.blocks)
    if find_parts(blocks[site.layer], text.config).norm_after_sum:
        return  # the sum goes through a norm, and is not the block's output
    difference = sum_rule({point: whole[site._replace(point=point)] for point in POINTS})
    if not difference <= tolerance:
        why = (
            "what its modules give is not what is added to the residual stream: input, attention "
            f"and MLP differ from the output by {difference:.2g} of its largest value"
        )
        raise ModelError(no_such_point(site, truncated.description.name, why))


def _norms(activations: Tensor) -> tuple[float, float, float, int]:
    """Median norm at position 0, of the others, their ratio, and the number of outliers."""
    norms = activations.float().norm(dim=-1)
    first, median = norms[:, 0].median(), norms[:, 1:].median()
    outliers = int((norms[:, 1:] > OUTLIER * median).sum())
    return float(first), float(median), float(first / median), outliers


def _whole_model(
    truncated: TruncatedModel, source: ModelSource, tokens: Tensor
) -> dict[Site, Tensor]:
    """What the whole model gives at each site, and at all points of blocks whose parts are tapped:
    (B, T, d). resid_post is what transformers gives as hidden states, where it gives those of
    every block that runs; of the last block its raw output."""
    skeleton = truncated.skeleton
    model, _ = load_base_model(source, skeleton, truncated.dtype, truncated.device)
    try:
        with model_errors(source.name, "running the whole model"):
            return _hidden_states(model, truncated, tokens.to(truncated.device))
    finally:
        del model
        gc.collect()
        if truncated.device.type == "cuda":
            torch.cuda.empty_cache()


@torch.no_grad()
def _hidden_states(model: Any, truncated: TruncatedModel, tokens: Tensor) -> dict[Site, Tensor]:
    anatomy = truncated.skeleton.anatomy
    text = model.get_submodule(anatomy.text)
    blocks = list(model.get_submodule(anatomy.blocks))
    ran: list[int] = []
    first: list[Tensor] = []
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    wanted = set(truncated.sites)
    for site in truncated.sites:
        if site.point in ADDED:
            wanted |= {site._replace(point=point) for point in POINTS}
    parts = [s for s in wanted if s.point not in ADDED or _found(s, blocks, text.config)]
    taps = tap_all(parts, blocks, text.config)
    for block in blocks:
        block.register_forward_hook(
            lambda _m, _i, out: first.append(first_tensor(out).clone()) if not first else None
        )
    # the text part alone: a multi-modal model may want images too
    output = text(input_ids=tokens.to(torch.int64), output_hidden_states=True)
    _refuse_repeated(truncated, ran)
    length = tokens.shape[1]
    rows = {site: truncated.contexts(tap.take(), length) for site, tap in taps.items()}
    states = getattr(output, "hidden_states", None) or ()
    of_first = truncated.contexts(first[0], length)
    # most architectures put the embeddings in front, Mamba does not
    shift = 0 if states and torch.equal(states[0], of_first) else 1
    padded = of_first.numel() != first[0].numel()
    if padded and not any(torch.equal(state, of_first) for state in states[:2]):
        raise ModelError(
            f"model {truncated.description.name}: its blocks run on {first[0].shape[1]} rows for "
            f"{length} tokens, and the first of them are not those of the tokens; its blocks "
            "cannot be tapped"
        )
    for site in truncated.sites:
        # blocks that do not run have no state: count those that ran
        place = ran.index(site.layer)
        if site.point == "resid_post" and place < len(ran) - 1 and len(states) >= len(ran) + shift:
            rows[site] = states[place + shift]
    return rows


def _refuse_repeated(truncated: TruncatedModel, ran: list[int]) -> None:
    """The truncated model ends when a block has run once."""
    for site in truncated.sites:
        if ran.count(site.layer) > 1:
            raise ModelError(
                f"{_name(truncated, site)}: this block runs {ran.count(site.layer)} times a pass, "
                "so it has no one output; take another --model"
            )


def _found(site: Site, blocks: list[Any], config: Any) -> bool:
    parts = find_parts(blocks[site.layer], config)
    return bool(parts.attention if site.point == "attn_out" else parts.mlp)
