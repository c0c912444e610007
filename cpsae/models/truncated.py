"""The truncated language model: embeddings and blocks 0..layer, and the raw output of the last."""

import hashlib
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from cpsae.errors import ModelError
from cpsae.models.description import Skeleton, build_skeleton, measure
from cpsae.models.guard import model_errors
from cpsae.models.hooks import drop_unused, first_tensor
from cpsae.models.loading import load_base_model
from cpsae.models.source import ModelSource

_HASHED_AT_ONCE = 1 << 24
"""Elements that are copied from the device at a time for hashing."""


class _Reached(Exception):
    """Ends a forward pass once the tapped block has run: nothing after it is computed."""


class TruncatedModel:
    """Blocks 0..layer of a language model, in evaluation mode; build it with `load`.

    `activations` equals `hidden_states[layer + 1]` of the whole model, bit for bit at the same
    shape of batch, for every block but the last: there it is the block's own output, where
    transformers gives what comes after the final norm.
    """

    def __init__(
        self,
        source: ModelSource,
        layer: int,
        skeleton: Skeleton,
        root: nn.Module,
        dtype: torch.dtype,
    ) -> None:
        """`root` is loaded in `dtype`, of the skeleton's shape, its blocks cut after `layer`."""
        self.skeleton = skeleton
        self.description = measure(source, skeleton)
        self.layer = layer
        self.n_layers = self.description.n_layers
        self.d = self.description.d
        self.attention = self.description.attention
        self.dtype = dtype
        self._model = root.get_submodule(skeleton.anatomy.text)
        self.device = next(self._model.parameters()).device
        self._output: Tensor | None = None
        blocks = root.get_submodule(skeleton.anatomy.blocks)
        assert isinstance(blocks, nn.ModuleList)
        blocks[layer].register_forward_hook(self._stop)
        _calm(self._model)

    @classmethod
    def load(
        cls,
        source: ModelSource,
        layer: int,
        dtype: torch.dtype,
        device: torch.device,
        attention: str = "auto",
    ) -> "TruncatedModel":
        """Load embeddings and blocks 0..layer, and nothing else.

        Raises ModelError where the model has no such layer, its weights cannot be read, or the
        checkpoint lacks one of those that are used.
        """
        skeleton = build_skeleton(source, attention)
        measure(source, skeleton).check_layer(layer)
        root, missing = load_base_model(source, skeleton, dtype, device, n_blocks=layer + 1)
        truncated = cls(source, layer, skeleton, root, dtype)
        truncated._keep_what_runs()
        prefix = f"{skeleton.anatomy.text}." if skeleton.anatomy.text else ""
        used = {prefix + name for name in truncated._model.state_dict()}
        _refuse_random(source.name, sorted(missing & used), len(used))
        return truncated

    @torch.no_grad()
    def activations(self, tokens: Tensor) -> Tensor:
        """Run contexts of equal length: tokens (B, T), any integer type; gives (B, T, d) in dtype,
        on the model's device. There is no padding, so no mask is built.
        """
        ids = tokens.to(self.device, torch.int64, non_blocking=True)
        with suppress(_Reached):
            self._model(input_ids=ids)
        output, self._output = self._output, None
        assert output is not None, "the tapped block did not run"
        return output.to(self.dtype)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over name, shape, dtype and bytes of the weights that are used, by name.

        Independent of where the model lies and how its files are cut; depends on dtype. Tensors
        are hashed piece by piece, so it needs no second copy of any of them.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
            for piece in tensor.detach().reshape(-1).split(_HASHED_AT_ONCE):
                digest.update(piece.cpu().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def parameter_bytes(self) -> int:
        """Memory of the weights."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters())

    def _stop(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._output = first_tensor(output)
        raise _Reached

    def _keep_what_runs(self) -> None:
        """Run two tokens, drop what that did not use, and run them again: a part that was used
        without being called shows itself here, not in the middle of an extraction."""
        anatomy = self.skeleton.anatomy
        blocks = anatomy.blocks.removeprefix(f"{anatomy.text}.")
        used: set[nn.Module] = set()
        hooks = [
            module.register_forward_pre_hook(lambda module, _inputs: used.add(module))
            for module in self._model.modules()
        ]
        tokens = torch.zeros((1, 2), dtype=torch.int64)
        with model_errors(self.description.name, "running its first blocks"):
            self.activations(tokens)
            for hook in hooks:
                hook.remove()
            drop_unused(self._model, blocks, used)
            shape = tuple(self.activations(tokens).shape)
        if shape != (1, 2, self.d):
            raise ModelError(
                f"model {self.description.name}: layer {self.layer} gives shape {shape} for two "
                f"tokens, expected (1, 2, {self.d}); this architecture's blocks cannot be tapped"
            )


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
