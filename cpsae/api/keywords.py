"""The settings as keywords, for editors and type checkers. A test keeps them in step with the
settings' own classes, which say what each of them means."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from cpsae.config.extraction import Dtype, Point, StoreDtype
from cpsae.events import OnEvent

Text = str | os.PathLike[str]
Whole = int | str
"""A count: a whole number, or a text like 512k or 10M."""


class ExtractKeywords(TypedDict, total=False):
    """What `cpsae.extract` takes: the fields of ExtractSettings."""

    model: Text
    revision: str | None
    layer: int | Sequence[int] | str
    hook: Point | Sequence[Point]
    tokens: Whole
    dataset: Text
    dataset_revision: str | None
    dataset_config: str | None
    split: str | None
    text_field: str
    ids_field: str | None
    messages_field: str | None
    encoding: str | None
    special_tokens: bool
    vectors: Whole
    store: Text
    dtype: Dtype
    store_dtype: StoreDtype
    device: str
    batch_contexts: Whole | None
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]
    keep_bos: bool
    seed: int
    trust_remote_code: bool


class FitKeywords(TypedDict, total=False):
    """What `cpsae.fit` takes: the fields of FitSettings, then those of the kinds of autoencoder,
    each of which has some of them."""

    kind: str
    n_latents: Whole | None
    normalize: Literal["layer", "layer-variance", "unit", "sqrt-d", "none"]
    init: Literal["tied", "uniform", "data"]
    frozen: Literal["none", "decoder", "encoder"]
    center: bool
    mse_reduction: Literal["sum", "mean"]
    steps: Whole | None
    batch_size: Whole
    optimizer: Literal["adamw", "adam"]
    lr: float
    lr_scaling: Literal["none", "width"]
    weight_decay: float
    warmup_steps: Whole
    lr_decay: float
    clip: float
    scale_schedule: bool
    seed: int
    order_seed: int
    max_norm: float
    window_chunks: Whole
    device: str
    precision: Literal["auto", "bfloat16", "float32"]
    split: Literal["data", "features"]
    log_every: Whole
    checkpoint_every: Whole
    keep_checkpoints: Whole
    growth: Literal["hybrid", "fixed", "linear", "none"]
    growth_every: Whole
    growth_until: float
    initial_fraction: float
    utilisation: Literal["mean", "any"]
    importance_beta: float
    importance_threshold: float
    new_features: Literal["initial", "residual"]
    revive_every: Whole
    revive_until: float
    firing_share: float

    k: Whole
    k_start: float
    k_until: float
    min_fire_every: Whole
    prefixes: Sequence[float]
    inhibition: float
    l1: float
    l1_on: Literal["competed", "raw"]
    p_end: float
    anneal_from: float
    gate_coefficient: float
    target_l0: float
    l0_coefficient: float
    l0_warmup_steps: Whole
    bandwidth: float
    input_gradient: bool
    aux_k: Whole | None
    aux_coefficient: float
    dead_after: Whole | None
    temperature: Mapping[str, Any]
    competition: Mapping[str, Any]


class RunKeywords(FitKeywords, total=False):
    """What `cpsae.fit` and `cpsae.sweep` take beside the settings, and those."""

    out: Text | None
    init_run: Text | None
    preset: str
    fresh: bool
    allow_partial: bool
    follow: bool
    stretch: bool
    track: str | Sequence[str]
    track_project: str | None
    store_identity: str | None
    progress: bool
    on_event: OnEvent | None


def path_or_none(path: Text | None) -> str | None:
    """A path as text, where one was given."""
    return None if path is None else os.fspath(path)
