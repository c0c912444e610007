"""The truncated language model: embeddings and blocks 0..layer, and what is tapped in them."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from cpsae.config.extraction import Site
from cpsae.errors import ModelError
from cpsae.models.description import check_points, measure
from cpsae.models.guard import model_errors
from cpsae.models.hooks import put, unused
from cpsae.models.loading import load_base_model
from cpsae.models.sites import ADDED, no_such_point, tap_all
from cpsae.models.skeleton import Skeleton, build_skeleton
from cpsae.models.source import ModelSource

_HASHED_AT_ONCE = 1 << 24
"""Elements that are copied from the device at a time for hashing."""


class _Reached(Exception):
    """Ends a forward pass once the tapped block has run: nothing after it is computed."""


class TruncatedModel:
    """Blocks 0..layer of a language model, in evaluation mode; build it with `load`.

    Of each site it gives what the whole model gives there, bit for bit at the same shape of batch:
    `resid_post` of any block but the last is `hidden_states[layer + 1]`; of the last it is the
    block's own output, where transformers gives what comes after the final norm.
    """

    def __init__(
        self,
        source: ModelSource,
        sites: Sequence[Site],
        skeleton: Skeleton,
        root: nn.Module,
        dtype: torch.dtype,
    ) -> None:
        """`root` is loaded in `dtype`, of the skeleton's shape, its blocks cut after the last of
        the sites' layers."""
        self.skeleton = skeleton
        self.description = measure(source, skeleton)
        self.sites = list(sites)
        self.layer = max(site.layer for site in sites)
        self.n_layers = self.description.n_layers
        self.d = self.description.d
        self.attention = self.description.attention
        self.dtype = dtype
        self._model = root.get_submodule(skeleton.anatomy.text)
        self.device = next(self._model.parameters()).device
        blocks = root.get_submodule(skeleton.anatomy.blocks)
        assert isinstance(blocks, nn.ModuleList)
        self._blocks = skeleton.anatomy.blocks_in_text
        self._harmless = harmless_token(skeleton.model.config, self.description.embedding_rows)
        self._taps = tap_all(sites, list(blocks), self._model.config)
        blocks[self.layer].register_forward_hook(self._stop)
        self._time_first = False
        self._unused: dict[int, list[str]] = {}
        """What a model cut after a layer does not use, by that layer."""
        self._fingerprints: dict[int, str] = {}
        _calm(self._model)

    @classmethod
    def load(
        cls,
        source: ModelSource,
        sites: int | Sequence[Site],
        dtype: torch.dtype,
        device: torch.device,
        attention: str = "auto",
    ) -> "TruncatedModel":
        """Load embeddings and the blocks up to the last that a site is in, and nothing else.
        sites: a number stands for that block's output.

        Raises ModelError where the model has no such layer or no such point, its weights cannot be
        read, or the checkpoint lacks one of those that are used.
        """
        sites = [Site(sites)] if isinstance(sites, int) else sites
        for as_saved in (False, True):
            skeleton = build_skeleton(source, attention, as_saved)
            check_points(source, skeleton, sites)
            layer = max(site.layer for site in sites)
            root, missing = load_base_model(source, skeleton, dtype, device, n_blocks=layer + 1)
            truncated = cls(source, sites, skeleton, root, dtype)
            truncated._keep_what_runs()
            text = skeleton.anatomy.text
            used = {f"{text}.{n}" if text else n for n in truncated._model.state_dict()}
            if not used <= missing:
                break
            # some base models of transformers read none of what their own model with a head saves
        _refuse_random(source.name, sorted(missing & used), len(used))
        return truncated

    def activations(self, tokens: Tensor) -> Tensor:
        """`rows` of the only site."""
        (found,) = self.rows(tokens).values()
        return found

    @torch.no_grad()
    def rows(self, tokens: Tensor) -> dict[Site, Tensor]:
        """Run contexts of equal length: tokens (B, T), any integer type; gives (B, T, d) in dtype
        of each site, on the model's device. There is no padding, so no mask is built.
        """
        self._run(tokens)
        length = tokens.shape[1]
        return {
            site: self.contexts(tap.take(), length).to(self.dtype)
            for site, tap in self._taps.items()
        }

    def contexts(self, given: Tensor, length: int) -> Tensor:
        """Rows (B, T, d) of contexts of this length, of what a block gives: some blocks run time
        first (XLNet: (T, B, d)), some on contexts that are padded at their end (Longformer)."""
        return (given.transpose(0, 1) if self._time_first else given)[:, :length]

    @torch.no_grad()
    def probe(self, tokens_per_context: int) -> None:
        """Run one context of this length, of a token that means nothing special. Raises ModelError
        where the model cannot: some limits are in no config and in no table."""
        name = self.description.name
        doing = f"running a context of {tokens_per_context} tokens"
        tokens = torch.full((1, tokens_per_context), self._harmless)
        with model_errors(name, doing, "take fewer --tokens"):
            rows = self.rows(tokens)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        for site, found in rows.items():
            if found.shape != (1, tokens_per_context, self.d):
                raise ModelError(
                    f"model {name}: {doing} gives shape {tuple(found.shape)} at layer "
                    f"{site.layer}, expected (1, {tokens_per_context}, {self.d}); take other "
                    "--tokens"
                )

    def fingerprint(self, layer: int | None = None) -> str:
        """SHA-256 (hex) over name, shape, dtype and bytes of the weights that are used up to block
        `layer` (default: the last one), by name: what a model cut there has.

        Independent of where the model lies and how its files are cut; depends on dtype. Tensors
        are hashed piece by piece, so it needs no second copy of any of them.
        """
        layer = self.layer if layer is None else layer
        if layer not in self._fingerprints:
            self._fingerprints[layer] = self._hash(layer)
        return self._fingerprints[layer]

    def _hash(self, layer: int) -> str:
        beyond = [f"{self._blocks}.{number}" for number in range(layer + 1, self.layer + 1)]
        left_out = tuple(f"{name}." for name in [*beyond, *self._unused[layer]])
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            if name.startswith(left_out):
                continue
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
            for piece in tensor.detach().reshape(-1).split(_HASHED_AT_ONCE):
                digest.update(piece.cpu().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _run(self, tokens: Tensor) -> None:
        ids = tokens.to(self.device, torch.int64, non_blocking=True)
        with suppress(_Reached):
            self._model(input_ids=ids)

    def _stop(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        raise _Reached

    def _drop_unused(self, tokens: Tensor) -> None:
        """Put nothing in the place of parts that were not called, but for those that are read all
        the same (LayoutLMv3 asks its image embeddings for their dtype)."""
        parts = {name: self._model.get_submodule(name) for name in self._unused[self.layer]}
        for name in parts:
            put(self._model, name, nn.Identity())
        if self._runs(tokens):
            return
        for name, part in parts.items():
            put(self._model, name, part)
        for name, part in parts.items():
            put(self._model, name, nn.Identity())
            if self._runs(tokens):
                continue
            put(self._model, name, part)
            for names in self._unused.values():
                if name in names:
                    names.remove(name)

    def _runs(self, tokens: Tensor) -> bool:
        try:
            self._run(tokens)
        except Exception:  # of the model's own code; `rows` says which where it is the last word
            return False
        return True

    def _refuse_skipped(self, ran: set[int]) -> None:
        """Some blocks of a multi-modal model read images alone (Mllama's cross-attention); some
        models run theirs past every hook (SqueezeBERT)."""
        if not ran:
            raise ModelError(
                f"model {self.description.name}: does not call its blocks as modules, so that they "
                "cannot be tapped; take another --model"
            )
        for site in self.sites:
            if site.layer not in ran:
                raise ModelError(
                    f"layer {site.layer}: {self.description.name} does not run this block on text "
                    "alone; choose another --layer"
                )

    @torch.no_grad()
    def _keep_what_runs(self) -> None:
        """Run two tokens, drop what that did not use, and run them again: what is wrong with that
        shows itself here, not in the middle of an extraction."""
        used: set[nn.Module] = set()
        after: dict[int, set[nn.Module]] = {}
        hooks = [
            module.register_forward_pre_hook(lambda module, _inputs: used.add(module))
            for module in self._model.modules()
        ]
        blocks = self._model.get_submodule(self._blocks)
        for number, block in enumerate(blocks.children()):
            # in front of the hook that ends the pass
            hooks.append(
                block.register_forward_hook(
                    lambda *_, number=number: after.update({number: set(used)}), prepend=True
                )
            )
        tokens = torch.full((1, 2), self._harmless)
        with model_errors(self.description.name, "running its first blocks"):
            self._run(tokens)
            for hook in hooks:
                hook.remove()
            self._refuse_skipped(set(after))
            given = {tap.take().shape for tap in self._taps.values()}
            self._time_first = given == {(2, 1, self.d)}
            for number, modules in after.items():
                self._unused[number] = unused(self._model, self._blocks, modules)
            self._drop_unused(tokens)
            shapes = {site: tuple(rows.shape) for site, rows in self.rows(tokens).items()}
        for site, shape in shapes.items():
            if shape == (1, 2, self.d):
                continue
            if site.point in ADDED:
                why = f"its module gives shape {shape} for two tokens, expected (1, 2, {self.d})"
                raise ModelError(no_such_point(site, self.description.name, why))
            raise ModelError(
                f"model {self.description.name}: layer {site.layer} gives shape {shape} for two "
                f"tokens, expected (1, 2, {self.d}); this architecture's blocks cannot be tapped"
            )


def harmless_token(config: Any, rows: int) -> int:
    """The first token id, of `rows`, that the config gives no special meaning, like that of padding
    or of an image."""
    special: set[int] = set()
    pending = [config.to_dict()]
    for values in pending:
        for name, value in values.items():
            if isinstance(value, dict):
                pending.append(value)
            elif "token" in str(name):
                given = value if isinstance(value, list) else [value]
                special.update(token for token in given if isinstance(token, int))
    return next((token for token in range(rows) if token not in special), 0)


def _calm(model: nn.Module) -> None:
    """Turn off a warning about padding: it reads the tokens back from the GPU, which waits."""
    for module in model.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            setattr(module, "warn_if_padding_and_no_attention_mask", _say_nothing)  # noqa: B010


def _say_nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def _refuse_random(name: str, missing: list[str], n_used: int) -> None:
    if missing:
        raise ModelError(
            f"model {name}: the checkpoint lacks {len(missing)} of the {n_used} weights that are "
            f"used, {missing[0]} for one; running it would give random numbers: fetch it again"
        )
