"""A whole model built from its config on the meta device, and where its parts are."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    PreTrainedModel,
)

from cpsae.errors import ModelError
from cpsae.models.guard import model_errors
from cpsae.models.hooks import Anatomy, find_anatomy
from cpsae.models.source import ModelSource


_CLASSES: tuple[Any, ...] = (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForImageTextToText,
)
"""Where a model's class is looked for, in this order."""


@dataclass(frozen=True)
class Skeleton:
    """A whole model on the meta device: every shape and no memory."""

    model: Any
    anatomy: Anatomy
    attention: str


def build_skeleton(source: ModelSource, attention: str = "auto") -> Skeleton:
    """Build the whole base model (no head) on the meta device and find its blocks.

    `attention`: auto (eager where logits are soft-capped, else sdpa where the model has it, else
    eager) or an implementation of transformers. Raises ModelError as `describe` does.
    """
    with model_errors(source.name, "reading its config"):
        config = AutoConfig.from_pretrained(source.path, **source.arguments)
        capped = soft_capping(config.get_text_config())
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
    """The base model: itself where there is a class for it, else what stands below a head."""
    with torch.device("meta"):
        model = _auto_class(source, config).from_config(
            config, attn_implementation=attention, trust_remote_code=source.trust_remote_code
        )
    base = getattr(model, model.base_model_prefix or "", None)
    return base if isinstance(base, PreTrainedModel) else model


def _auto_class(source: ModelSource, config: Any) -> Any:
    """The class of transformers that makes this model. What a repository ships comes first, where
    it is trusted; many ship a model with a head alone."""
    shipped = (getattr(config, "auto_map", None) or {}) if source.trust_remote_code else {}
    for auto in _CLASSES:
        if auto.__name__ in shipped:
            return auto
    for auto in _CLASSES:
        if type(config) in auto._model_mapping:
            return auto
    return AutoModel  # says what it knows


def soft_capping(text_config: Any) -> bool:
    return getattr(text_config, "attn_logit_softcapping", None) is not None
