"""What can be known of a model from its config alone, before any weight is read or downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from cpsae.config.extraction import Site
from cpsae.errors import ModelError
from cpsae.models.guard import model_errors
from cpsae.models.hooks import Anatomy, find_anatomy
from cpsae.models.sites import check_sites
from cpsae.models.source import ModelSource


@dataclass(frozen=True)
class ModelDescription:
    """Sizes of a model, exact, as its config gives them."""

    name: str
    architecture: str
    """Class of the language model without a head, like Gemma2Model: independent of the format."""
    n_layers: int
    d: int
    vocabulary: int
    context_limit: int | None
    """Most tokens in a context (max_position_embeddings), where the config says so."""
    soft_capping: bool
    """Whether attention logits are capped, which scaled_dot_product_attention cannot do."""
    attention: str
    """The implementation that the one asked for comes down to."""
    commit: str | None
    """Of a model on the hub."""
    block_parameters: tuple[int, ...]
    """Parameters of each block."""
    other_parameters: int
    """Embeddings, and the little that stands beside the blocks."""

    def check_layer(self, layer: int) -> None:
        """Raise ModelError unless there is a block of this number, counted from 0."""
        if not 0 <= layer < self.n_layers:
            raise ModelError(
                f"layer {layer}: {self.name} has {self.n_layers} blocks, so --layer takes 0 to "
                f"{self.n_layers - 1}"
            )

    def check_tokens(self, tokens: int) -> None:
        """Raise ModelError where contexts are longer than the model reads."""
        if self.context_limit is not None and tokens > self.context_limit:
            raise ModelError(
                f"tokens {tokens}: {self.name} reads at most {self.context_limit} tokens a context"
            )

    def parameters(self, layer: int) -> int:
        """Parameters that are held in memory for blocks 0..layer, embeddings included."""
        return self.other_parameters + sum(self.block_parameters[: layer + 1])


@dataclass(frozen=True)
class Skeleton:
    """A whole model on the meta device: every shape and no memory."""

    model: Any
    anatomy: Anatomy
    attention: str


def describe(
    source: ModelSource, attention: str = "auto", sites: Sequence[Site] = ()
) -> ModelDescription:
    """Describe a model from its config, and check that it has these sites. Reads no weights.

    Raises ModelError where it lacks one of them, where the config is missing or malformed, the
    architecture is unknown, its blocks cannot be found, or it cannot run with the attention
    implementation that is asked for.
    """
    skeleton = build_skeleton(source, attention)
    check_points(source, skeleton, sites)
    return measure(source, skeleton)


def check_points(source: ModelSource, skeleton: Skeleton, sites: Sequence[Site]) -> None:
    """Raises ModelError where a model of this skeleton lacks one of the sites."""
    description = measure(source, skeleton)
    for site in sites:
        description.check_layer(site.layer)
    text = skeleton.model.get_submodule(skeleton.anatomy.text)
    blocks = list(skeleton.model.get_submodule(skeleton.anatomy.blocks))
    check_sites(sites, blocks, text.config, source.name)


def measure(source: ModelSource, skeleton: Skeleton) -> ModelDescription:
    """The sizes of a skeleton."""
    text = skeleton.model.get_submodule(skeleton.anatomy.text)
    config = text.config
    blocks = skeleton.model.get_submodule(skeleton.anatomy.blocks)
    per_block = tuple(_count(block) for block in blocks)
    return ModelDescription(
        name=source.name,
        architecture=type(text).__name__,
        n_layers=skeleton.anatomy.n_layers,
        d=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
        context_limit=getattr(config, "max_position_embeddings", None),
        soft_capping=_soft_capping(config),
        attention=skeleton.attention,
        commit=source.commit,
        block_parameters=per_block,
        other_parameters=_count(text) - sum(per_block),
    )


def build_skeleton(source: ModelSource, attention: str = "auto") -> Skeleton:
    """Build the whole base model (no head) on the meta device and find its blocks.

    `attention`: auto (eager where logits are soft-capped, else sdpa where the model has it, else
    eager) or an implementation of transformers. Raises ModelError as `describe` does.
    """
    with model_errors(source.name, "reading its config"):
        config = AutoConfig.from_pretrained(source.path, **source.arguments)
        capped = _soft_capping(config.get_text_config())
    if attention == "sdpa" and capped:
        # transformers before 5 takes sdpa here and silently leaves the cap out
        raise ModelError(
            f"model {source.name}: has attention soft-capping, which sdpa cannot do; take eager"
        )
    if attention == "auto":
        attention = "eager" if capped or not _has_sdpa(source, config) else "sdpa"
    with model_errors(source.name, f"building it with attention {attention}"):
        model = _on_meta(source, config, attention)
    anatomy = find_anatomy(model, source.name)
    return Skeleton(model, anatomy, attention)


def _has_sdpa(source: ModelSource, config: Any) -> bool:
    """Whether the model takes sdpa: transformers says so only by raising or not."""
    try:
        with model_errors(source.name, "building it"):
            _on_meta(source, config, "sdpa")
    except ModelError as error:
        if isinstance(error.__cause__, ValueError | ImportError):
            return False
        raise
    return True


def _on_meta(source: ModelSource, config: Any, attention: str) -> Any:
    with torch.device("meta"):
        return AutoModel.from_config(
            config, attn_implementation=attention, trust_remote_code=source.trust_remote_code
        )


def _soft_capping(text_config: Any) -> bool:
    return getattr(text_config, "attn_logit_softcapping", None) is not None


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
