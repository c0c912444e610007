"""A whole causal model with its head, whose rows at one site can be replaced while it runs.

Names: B contexts, T tokens a context, D dimensions, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        self._early = list(blocks)[: site.layer]
        self._early_can_be_kept = bool(self._early)
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
        spliced._early_can_be_kept = bool(spliced._early) and spliced._is_same_from_the_site_on()
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

    def on(self, tokens_BT: Tensor) -> "OnContexts":
        """The model on these contexts, to be run with several replacements."""
        return OnContexts(self, tokens_BT)

    @contextmanager
    def keeping(self) -> Iterator[list[Any]]:
        """Meanwhile what comes out of the last block before the site's is put into a list, which
        stays empty where a run cannot begin there."""
        kept: list[Any] = []
        if not self._early_can_be_kept:
            yield kept
            return
        handle = self._early[-1].register_forward_hook(
            lambda _block, _inputs, output: kept.append(_copied(output))
        )
        try:
            yield kept
        finally:
            handle.remove()

    @contextmanager
    def beginning_with(self, kept: list[Any]) -> Iterator[None]:
        """Meanwhile the blocks before the site's compute nothing: they give what was kept."""
        early = self._early if len(kept) == 1 else []
        before = [vars(block).get("forward") for block in early]
        for block in early:
            block.forward = lambda *_inputs, **_options: _copied(kept[0])
        try:
            yield
        finally:
            for block, forward in zip(early, before, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward

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
        return _with_rows(output, self._spliced(first_tensor(output)))

    def _spliced(self, given: Tensor) -> Tensor:
        assert self._replace is not None, "hooks ask first"
        self._came_by = True
        # OPT's fc2 gives (B * T, D)
        return self._replace(given.reshape(*self._shape, given.shape[-1])).reshape(given.shape)

    def _is_same_from_the_site_on(self) -> bool:
        """Whether all that a block hands on is what it returns. Some models hand on more, past
        their blocks; those are run as a whole each time."""
        first = harmless_token(self._model.config, self.vocabulary)
        tokens = (first + torch.arange(12).reshape(2, 6)) % self.vocabulary
        changes: list[Replace] = [torch.zeros_like, lambda rows: rows / 2, torch.zeros_like]
        try:
            here = self.on(tokens)
            return all(torch.equal(here.logits(c), self.logits(tokens, c)) for c in changes)
        except ModelError:
            return False

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


class OnContexts:
    """A model on some contexts: as it is, and as often as one likes from the site's block on."""

    def __init__(self, model: SplicedModel, tokens_BT: Tensor) -> None:
        """tokens_BT: of any integer type. Raises ModelError where the model cannot run."""
        self._model, self._tokens = model, tokens_BT
        with model.keeping() as self._kept:
            self.clean = model.logits(tokens_BT)
            """(B, T, V), nothing replaced."""

    def logits(self, replace: Replace) -> Tensor:
        """What `SplicedModel.logits` gives, to the bit."""
        with self._model.beginning_with(self._kept):
            return self._model.logits(self._tokens, replace)


def _with_rows(output: Any, rows: Tensor) -> Any:
    """What a block returned, with other rows."""
    return rows if isinstance(output, Tensor) else (rows, *output[1:])


def _copied(output: Any) -> Any:
    """What a block returned, its rows copied: the next block may change them in place."""
    return _with_rows(output, first_tensor(output).clone())


def _is_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
