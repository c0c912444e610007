"""Reading a model's weights into memory, all of them or those of the first blocks."""

from typing import Any

import torch

from cpsae.errors import ModelError
from cpsae.models.guard import model_errors
from cpsae.models.skeleton import Skeleton
from cpsae.models.source import ModelSource

try:  # since transformers 5.2x, which can also keep the weights packed
    from transformers import GgufConfig
except ImportError:
    GgufConfig = None


def load_base_model(
    source: ModelSource,
    skeleton: Skeleton,
    dtype: torch.dtype,
    device: torch.device,
    n_blocks: int | None = None,
) -> tuple[Any, set[str]]:
    """Load the base model (no head) with its first `n_blocks` blocks, or whole.

    Gives the model, in evaluation mode, and the names of weights that the checkpoint lacks, which
    transformers has filled with random numbers: the caller decides whether they are used. Only
    safetensors and GGUF are read. Raises ModelError where the weights cannot be.
    """
    model_class = type(skeleton.model)
    if n_blocks is not None:
        model_class = shortened(model_class, skeleton.anatomy.blocks, n_blocks)
    arguments = dict(source.arguments)
    if source.kind == "gguf" and GgufConfig is not None:
        arguments["quantization_config"] = GgufConfig(dequantize=True)
    arguments.pop("trust_remote_code")  # the class is chosen already
    with model_errors(source.name, "loading its weights"):
        model, information = model_class.from_pretrained(
            source.path,
            config=skeleton.model.config,
            dtype=dtype,
            attn_implementation=skeleton.attention,
            use_safetensors=True,
            output_loading_info=True,
            **arguments,
        )
        model = model.to(device)
    model.config.get_text_config().use_cache = False
    bad = [*information.get("mismatched_keys", ()), *information.get("error_msgs", ())]
    if bad:
        raise ModelError(f"model {source.name}: its weights do not fit its config: {bad[0]}")
    return model, set(information.get("missing_keys", ()))


def shortened(model_class: Any, blocks: str, n_blocks: int) -> Any:
    """A subclass whose list of blocks (dotted name `blocks`) ends after `n_blocks`.

    The list is cut after the model is built from its true config and before weights are read. A
    smaller `num_hidden_layers` would change more than the number of blocks: lists with one entry a
    layer no longer fit, and some models compute from it which blocks share keys or how weights are
    scaled.
    """

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        model_class.__init__(self, config, *args, **kwargs)
        del self.get_submodule(blocks)[n_blocks:]
        # weights that blocks share (Zamba2) are named up to the last block
        tied = getattr(self, "all_tied_weights_keys", {})
        held = self.state_dict().keys()
        for target, source in list(tied.items()):
            if target not in held or source not in held:
                del tied[target]

    # transformers keys several registries by these names
    names = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    return type(model_class.__name__, (model_class,), {"__init__": build, **names})
