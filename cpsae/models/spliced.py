"""A whole causal model with its head, whose rows at one site can be replaced while it runs.

Names: B contexts, T tokens a context, D dimensions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cpsae.config.extraction import Site
from cpsae.errors import ModelError
from cpsae.models.guard import model_errors
from cpsae.models.hooks import first_tensor
from cpsae.models.loading import load_base_model
from cpsae.models.sites import find_parts
from cpsae.models.skeleton import build_skeleton
from cpsae.models.source import ModelSource
from cpsae.models.truncated import harmless_token

Replace = Callable[[Tensor], Tensor]
"""From the rows (B, T, D) at a site to what takes their place, of the same shape and dtype."""

_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2.0**-8, torch.bfloat16: 2.0**-5}
"""By how much a prediction may depend on later tokens, relative to the largest logit: other shapes
of the same product."""


class SplicedModel:
    """A causal model in evaluation mode; build it with `load`."""

    def __init__(self, name: str, model: Any, site: Site, blocks: nn.ModuleList, config: Any):
        """blocks: of `model`; config: that of its language model."""
        self.name = name
        self.site = site
        self.config = config
        self._model = model
        self._replace: Replace | None = None
        self._came_by = False
        self._shape = torch.Size()
        block = blocks[site.layer]
        if site.point == "resid_pre":
            block.register_forward_pre_hook(self._splice_input, with_kwargs=True)
            return
        parts = find_parts(block, config)
        path = {"attn_out": parts.attention, "mlp_out": parts.mlp}.get(site.point, "")
        block.get_submodule(path).register_forward_hook(self._splice_output)

    @classmethod
    def load(
        cls, source: ModelSource, site: Site, dtype: torch.dtype, device: torch.device
    ) -> "SplicedModel":
        """Load the whole model. Raises ModelError where it has no head that predicts the next
        token, or one that sees the tokens behind it, or its weights cannot be read."""
        skeleton = build_skeleton(source, head=True)
        model, missing = load_base_model(source, skeleton, dtype, device)
        if missing:
            raise ModelError(
                f"model {source.name}: its checkpoint has no {min(missing)}, so nothing that "
                "predicts the next token; CE and KL need a causal model with its head"
            )
        blocks = model.get_submodule(skeleton.anatomy.blocks)
        text = model.get_submodule(skeleton.anatomy.text)
        spliced = cls(source.name, model, site, blocks, text.config)
        spliced._refuse_looking_ahead()
        return spliced

    @torch.no_grad()
    def logits(self, tokens_BT: Tensor, replace: Replace | None = None) -> Tensor:
        """(B, T, V) in the model's dtype, on its device; tokens of any integer type.

        Raises ModelError where nothing comes by at the site, or the model cannot run.
        """
        self._replace, self._came_by, self._shape = replace, False, tokens_BT.shape
        try:
            with model_errors(self.name, "running it whole"):
                logits: Tensor = self._model(input_ids=tokens_BT.to(self.device).long()).logits
        finally:
            self._replace = None
        if replace is not None and not self._came_by:
            raise ModelError(
                f"model {self.name}: nothing comes by at {self.site.point} of layer "
                f"{self.site.layer}; take the model that the store was made with"
            )
        return logits

    @property
    def vocabulary(self) -> int:
        """Rows of its table of token embeddings."""
        rows: int = self._model.get_input_embeddings().weight.shape[0]
        return rows

    @property
    def dtype(self) -> torch.dtype:
        """Of its rows and logits."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        device: torch.device = next(self._model.parameters()).device
        return device

    def _splice_input(self, _block: nn.Module, args: Any, kwargs: Any) -> Any:
        """The first floating tensor among the arguments, as a tap finds it, is replaced."""
        if self._replace is None:
            return None
        if args and _is_rows(args[0]):
            return (self._spliced(args[0]), *args[1:]), kwargs
        for name in ("hidden_states", *kwargs):
            if _is_rows(kwargs.get(name)):
                return args, {**kwargs, name: self._spliced(kwargs[name])}
        return None

    def _splice_output(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        if self._replace is None:
            return None
        rows = self._spliced(first_tensor(output))
        return rows if isinstance(output, Tensor) else (rows, *output[1:])

    def _spliced(self, given: Tensor) -> Tensor:
        assert self._replace is not None, "hooks ask first"
        self._came_by = True
        # OPT's fc2 gives (B * T, D)
        return self._replace(given.reshape(*self._shape, given.shape[-1])).reshape(given.shape)

    def _refuse_looking_ahead(self) -> None:
        """Two contexts that differ in their last token alone: what a masked model predicts before
        it differs too."""
        first = harmless_token(self._model.config, self.vocabulary)
        tokens = torch.full((2, 4), first)
        tokens[1, -1] = (first + 1) % self.vocabulary
        logits = self.logits(tokens)[:, :-1].float()
        if not (logits[0] - logits[1]).abs().max() <= _TOLERANCE[self.dtype] * logits.abs().max():
            raise ModelError(
                f"model {self.name}: what it predicts at a token depends on those behind it, as in "
                "a masked model; CE and KL need a causal model"
            )


def _is_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
