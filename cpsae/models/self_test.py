"""Checking the truncated model against the whole one, before hours are spent on it."""

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpsae.errors import ModelError, NonFiniteError
from cpsae.models.description import Skeleton
from cpsae.models.guard import model_errors
from cpsae.models.hooks import first_tensor
from cpsae.models.loading import load_base_model
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
    """Run tokens (T,) or (B, T), T at least 2, through the truncated and the whole model.

    The whole model is loaded for this alone, beside the truncated one, and freed. Raises
    NonFiniteError where activations hold NaN or Inf, ModelError where the two differ by more than
    TOLERANCE.
    """
    tokens = tokens.reshape(-1, tokens.shape[-1])
    name = f"layer {truncated.layer} of {source.name}"
    found = truncated.activations(tokens)
    if not bool(torch.isfinite(found).all()):
        bad = int((~torch.isfinite(found)).any(dim=-1).sum())
        raise NonFiniteError(
            f"{name}: NaN or Inf at {bad} of {tokens.numel()} positions in {truncated.dtype}; "
            "take --dtype float32, or bfloat16 in place of float16"
        )
    expected = _whole_model(truncated, source, tokens)
    difference = float(
        (found.float() - expected.float()).abs().max() / expected.float().abs().max()
    )
    if not difference <= TOLERANCE[truncated.dtype]:
        raise ModelError(
            f"{name}: the truncated model differs from the whole one by {difference:.2g} of the "
            f"largest value (tolerance {TOLERANCE[truncated.dtype]:.2g}); do not use it: this "
            "architecture, or this version of transformers, is not cut as it should be"
        )
    return SelfTest(torch.equal(found, expected), difference, *_norms(found))


def _norms(activations: Tensor) -> tuple[float, float, float, int]:
    """Median norm at position 0, of the others, their ratio, and the number of outliers."""
    norms = activations.float().norm(dim=-1)
    first, median = norms[:, 0].median(), norms[:, 1:].median()
    outliers = int((norms[:, 1:] > OUTLIER * median).sum())
    return float(first), float(median), float(first / median), outliers


def _whole_model(truncated: TruncatedModel, source: ModelSource, tokens: Tensor) -> Tensor:
    """hidden_states[layer + 1] of the whole model (B, T, d); of the last block its raw output."""
    skeleton = truncated.skeleton
    model, _ = load_base_model(source, skeleton, truncated.dtype, truncated.device)
    try:
        with model_errors(source.name, "running the whole model"):
            return _hidden_state(model, skeleton, truncated.layer, tokens.to(truncated.device))
    finally:
        del model
        gc.collect()
        if truncated.device.type == "cuda":
            torch.cuda.empty_cache()


@torch.no_grad()
def _hidden_state(model: Any, skeleton: Skeleton, layer: int, tokens: Tensor) -> Tensor:
    caught: list[Tensor] = []
    blocks = model.get_submodule(skeleton.anatomy.blocks)
    for block in {blocks[0], blocks[-1]}:
        block.register_forward_hook(lambda _block, _inputs, out: caught.append(first_tensor(out)))
    states = model(input_ids=tokens.to(torch.int64), output_hidden_states=True).hidden_states
    if layer == skeleton.anatomy.n_layers - 1:
        return caught[-1]
    # most architectures put the embeddings in front, Mamba does not
    state: Tensor = states[layer if torch.equal(states[0], caught[0]) else layer + 1]
    return state
