"""Where in a model of transformers the blocks are, and how their output is tapped."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from cpsae.errors import ModelError


@dataclass(frozen=True)
class Anatomy:
    """Dotted names of the parts that matter, within the model that AutoModel builds."""

    text: str
    """The language model: "" where it is the whole, else a part of a multi-modal one."""
    blocks: str
    """The list of its blocks, from the root."""
    n_layers: int

    @property
    def blocks_in_text(self) -> str:
        """The list of its blocks, from the language model."""
        return self.blocks.removeprefix(f"{self.text}.") if self.text else self.blocks


def find_anatomy(model: nn.Module, name: str) -> Anatomy:
    """Find the language model and its list of blocks. Weights may be on the meta device.

    The list is the one nn.ModuleList below the language model with `num_hidden_layers` entries
    that lies in no other such list; where several are left, those whose entries the model declares
    as blocks (`_no_split_modules`); where there is none, the one list of what it declares so
    (LongCat counts every block twice). Raises ModelError, naming what was looked for, where there
    is not exactly one; `name` is the model's name in that message.
    """
    config: Any = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model {name}: is an encoder-decoder ({type(model).__name__}); expected a causal or "
            "an encoder model"
        )
    text_config = config.get_text_config()
    n_layers = getattr(text_config, "num_hidden_layers", None)
    if not isinstance(n_layers, int) or n_layers < 1:
        raise ModelError(
            f"model {name}: its config has no num_hidden_layers; its blocks are unknown"
        )
    text = text_part(model)
    every = dict(_lists_of(model.get_submodule(text), text))
    declared = {*_declared(model), *_declared(model.get_submodule(text))}
    blocks = {n: m for n, m in every.items() if type(m[0]).__name__ in declared}
    found = _outermost({n: m for n, m in every.items() if len(m) == n_layers})
    if len(found) > 1:
        found = {n: m for n, m in found.items() if n in blocks} or found
    if not found:
        found = _outermost(blocks)
    if len(found) != 1:
        seen = ", ".join(found) or "there is none"
        raise ModelError(
            f"model {name}: looked in {type(model).__name__} for one nn.ModuleList of {n_layers} "
            f"blocks (num_hidden_layers); found: {seen}"
        )
    [(path, block_list)] = found.items()
    return Anatomy(text, path, len(block_list))


def first_tensor(output: Any) -> Tensor:
    """The hidden states (B, T, d) in what a block returns: a tensor, or a tuple that begins so."""
    tensor = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(tensor, Tensor):
        raise ModelError(f"a block returned {type(tensor).__name__}, expected a tensor or a tuple")
    return tensor


def unused(root: nn.Module, blocks: str, used: set[nn.Module]) -> list[str]:
    """Dotted names of what stands beside the blocks and was never run.

    `blocks` is the dotted name of the list below `root`, `used` the modules that ran before the
    tapped output was there. A final norm or a pooler is among them; embeddings are not.
    """
    path, found = [("", root)], []
    for part in blocks.split("."):
        name, parent = path[-1]
        path.append((f"{name}.{part}" if name else part, parent.get_submodule(part)))
    kept = {module for _, module in path}
    for name, parent in path[:-1]:
        for child_name, child in parent.named_children():
            parts = set(child.modules())
            # an embedding's weight may be read without a call (DeBERTa's relative positions)
            embeds = any(isinstance(part, nn.Embedding) for part in parts)
            if child not in kept and not embeds and not used & parts:
                found.append(f"{name}.{child_name}" if name else child_name)
    return found


def put(root: nn.Module, name: str, part: nn.Module) -> None:
    """Set the module of this dotted name, in place."""
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, part)


def text_part(model: nn.Module) -> str:
    """The dotted name of the outermost module that was built from the text's own config, without
    its head if it has one."""
    config: Any = model.config
    text_config = config.get_text_config()
    parts: list[tuple[str, Any]] = list(model.named_modules())
    for name, module in parts:
        if getattr(module, "config", None) is text_config:
            return _below_head(name, module)
    return ""


def _below_head(name: str, module: Any) -> str:
    prefix = getattr(module, "base_model_prefix", "")
    base = getattr(module, prefix, None) if prefix else None
    if not isinstance(base, PreTrainedModel):
        return name
    return _below_head(f"{name}.{prefix}" if name else prefix, base)


def _declared(model: Any) -> list[str]:
    return list(getattr(model, "_no_split_modules", None) or ())


def _lists_of(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.ModuleList]]:
    for name, part in module.named_modules(prefix=prefix):
        if isinstance(part, nn.ModuleList) and len(part):
            yield name, part


def _outermost(lists: dict[str, nn.ModuleList]) -> dict[str, nn.ModuleList]:
    """Drop lists inside lists: as many experts in each block as there are blocks, for instance."""
    kept: dict[str, nn.ModuleList] = {}
    for name, part in lists.items():  # parents come before their children
        if not any(name.startswith(f"{outer}.") for outer in kept):
            kept[name] = part
    return kept
