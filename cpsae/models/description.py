"""What can be known of a model from its config alone, before any weight is read or downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cpsae.config.extraction import Site
from cpsae.errors import ModelError
from cpsae.models.positions import context_limit
from cpsae.models.sites import check_sites
from cpsae.models.skeleton import Skeleton, build_skeleton, soft_capping
from cpsae.models.source import ModelSource


@dataclass(frozen=True)
class ModelDescription:
    """Sizes of a model, exact, as its config gives them."""

    name: str
    architecture: str
    """Class of the language model without a head, like Gemma2Model: independent of the format."""
    n_layers: int
    d: int
    embedding_rows: int
    """Rows of the table of token embeddings, which can differ from the config's vocab_size."""
    context_limit: int | None
    """Most tokens in a context, where the config or a table of positions says so."""
    soft_capping: bool
    """Whether attention logits are capped, which scaled_dot_product_attention cannot do."""
    attention: str
    """The implementation that the one asked for comes down to."""
    commit: str | None
    """Of a model on the hub."""
    block_parameters: tuple[int, ...]
    """Parameters of each block, those that blocks share with the first of them."""
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
    """The sizes of a skeleton. Raises ModelError where its width is not known, or its tokens have
    no table."""
    text = skeleton.model.get_submodule(skeleton.anatomy.text)
    blocks = skeleton.model.get_submodule(skeleton.anatomy.blocks)
    counted: set[nn.Parameter] = set()
    per_block = tuple(_count(block, counted) for block in blocks)
    return ModelDescription(
        name=source.name,
        architecture=type(text).__name__,
        n_layers=skeleton.anatomy.n_layers,
        d=_width(source, text),
        embedding_rows=_embedding_rows(source, skeleton, text),
        context_limit=context_limit(text, skeleton.anatomy.blocks_in_text),
        soft_capping=soft_capping(text.config),
        attention=skeleton.attention,
        commit=source.commit,
        block_parameters=per_block,
        other_parameters=_count(text, counted),
    )


def _width(source: ModelSource, text: Any) -> int:
    width = getattr(text.config, "hidden_size", None)
    if not isinstance(width, int):
        raise ModelError(
            f"model {source.name}: its config has no hidden_size; the width of its blocks is "
            "unknown"
        )
    return width


def _embedding_rows(source: ModelSource, skeleton: Skeleton, text: Any) -> int:
    for part in (text, skeleton.model):
        try:
            weight = getattr(part.get_input_embeddings(), "weight", None)
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(weight, Tensor) and weight.ndim == 2:
            return weight.shape[0]
    raise ModelError(
        f"model {source.name}: {type(text).__name__} has no table with a row for each token; "
        "expected a model that reads token ids"
    )


def _count(module: nn.Module, counted: set[nn.Parameter]) -> int:
    """Parameters that are not counted yet, which are added: blocks may share some."""
    new = set(module.parameters()) - counted
    counted |= new
    return sum(parameter.numel() for parameter in new)
