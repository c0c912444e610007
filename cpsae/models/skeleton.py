"""A whole model built from its config on the meta device, and where its parts are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
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
_WITH_HEAD: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
"""Where the class of one that predicts the next token is."""


@dataclass(frozen=True)
class Skeleton:
    """A whole model on the meta device: every shape and no memory."""

    model: Any
    anatomy: Anatomy
    attention: str


def build_skeleton(
    source: ModelSource, attention: str = "auto", as_saved: bool = False, head: bool = False
) -> Skeleton:
    """Build the whole model on the meta device and find its language model and its blocks.

    It is the base model (no head) where transformers has a class for it; with `as_saved` it is the
    class that the checkpoint was saved from, where transformers knows it; with `head` the one that
    predicts the next token. `attention`: auto (eager where logits are soft-capped, else sdpa where
    the model has it, else eager) or an implementation of transformers. Raises ModelError as
    `describe` does, and where there is no such class.
    """
    with model_errors(source.name, "reading its config"):
        config = AutoConfig.from_pretrained(source.path, **source.arguments)
        capped = soft_capping(config.get_text_config())
    if attention == "sdpa" and capped:
        # transformers before 5 takes sdpa here and silently leaves the cap out
        raise ModelError(
            f"model {source.name}: has attention soft-capping, which sdpa cannot do; take eager"
        )
    classes = _WITH_HEAD if head else _CLASSES
    build = partial(_on_meta, source, config, as_saved, classes)
    if attention == "auto":
        attention = "eager" if capped or not _has_sdpa(source, build) else "sdpa"
    with model_errors(source.name, f"building it with attention {attention}"):
        model = build(attention)
    anatomy = find_anatomy(model, source.name)
    return Skeleton(model, anatomy, attention)


def _has_sdpa(source: ModelSource, build: Callable[[str], Any]) -> bool:
    """Whether the model takes sdpa: transformers says so only by raising or not."""
    try:
        with model_errors(source.name, "building it"):
            build("sdpa")
    except ModelError as error:
        if isinstance(error.__cause__, ValueError | ImportError):
            return False
        raise
    return True


def _on_meta(
    source: ModelSource, config: Any, as_saved: bool, classes: Sequence[Any], attention: str
) -> Any:
    auto = _auto_class(source, config, classes)
    saved = _saved_class(config) if as_saved or (auto is None and classes is _CLASSES) else None
    if auto is None and saved is None:
        expected = ", ".join(known.__name__ for known in classes)
        raise ModelError(
            f"model {source.name}: neither transformers nor its own code offers {expected} for "
            f"a {type(config).__name__}; take a language model"
        )
    with torch.device("meta"):
        if saved is not None:
            return saved._from_config(config, attn_implementation=attention)
        return auto.from_config(
            config, attn_implementation=attention, trust_remote_code=source.trust_remote_code
        )


def _saved_class(config: Any) -> Any:
    """The class of transformers that the checkpoint was saved from, if it is known, and reads
    weights alone (Qwen2.5-Omni unpickles voices beside them)."""
    found = getattr(transformers, (config.architectures or [""])[0], None)
    reads = getattr(getattr(found, "from_pretrained", None), "__func__", None)
    return found if reads is PreTrainedModel.from_pretrained.__func__ else None


def _auto_class(source: ModelSource, config: Any, classes: Sequence[Any]) -> Any:
    """The class of transformers that makes this model, if any. What a repository ships comes first,
    where it is trusted; many ship a model with a head alone."""
    shipped = (getattr(config, "auto_map", None) or {}) if source.trust_remote_code else {}
    offered = [auto for auto in classes if auto.__name__ in shipped]
    offered += [auto for auto in classes if type(config) in auto._model_mapping]
    return offered[0] if offered else None


def soft_capping(text_config: Any) -> bool:
    return getattr(text_config, "attn_logit_softcapping", None) is not None
