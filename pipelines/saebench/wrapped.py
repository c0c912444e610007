"""A cpsae run as the class of autoencoder that SAEBench takes, and the model that it is of.

Names: D dimensions, N features; shapes (..., D) mean any leading dimensions.
"""

import os
from pathlib import Path
from typing import Any

import torch
from sae_bench.custom_saes.base_sae import BaseSAE
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.loading_from_pretrained import OFFICIAL_MODEL_NAMES

import cpsae
from cpsae.store import Store
from cpsae.training.run_folder import RunFolder

SITES = {"resid_post": "hook_resid_post", "resid_pre": "hook_resid_pre"}
"""Our hook points that TransformerLens has under another name, the same in every architecture."""


class WrappedRun(BaseSAE):  # type: ignore[misc]
    """Encodes and decodes as `cpsae.load(run)` does, raw vectors in and out.

    A normalisation of each row needs the row again to decode: the one that was encoded last is
    kept, since SAEBench always decodes what it has just encoded.
    """

    def __init__(self, run: Path, model: str, device: str) -> None:
        sae = cpsae.load(run, device)
        layer = int(sae.hook["layer"])
        super().__init__(
            sae.d,
            sae.n_latents,
            model,
            layer,
            torch.device(device),
            torch.float32,
            hook_name=f"blocks.{layer}.{SITES[sae.hook.get('name', 'resid_post')]}",
        )
        self.sae = sae
        self.W_enc, self.W_dec, self.b_dec = sae.W_enc, sae.W_dec, sae.b_dec
        if hasattr(sae, "b_enc"):
            self.b_enc = sae.b_enc
        self.cfg.architecture = sae.kind.name
        self.cfg.context_size = sae.hook.get("tokens")
        self._encoded: Tensor | None = None

    def encode(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., N)."""
        self._encoded = x
        return self.sae.encode(x)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """feature_acts: (..., N), of the vectors that were encoded last -> (..., D)."""
        return self.sae.decode(feature_acts, like=self._encoded).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        return self.decode(self.encode(x))


def store_of(run: Path, store: Path | None) -> Store:
    """The store that is named, or else the run's own."""
    return cpsae.open_store(store or RunFolder(run).read_config()["store"]["path"])


def enter_beside(model: str) -> str:
    """What SAEBench and sae-probes are to call a model. Both put it into file names, so that of a
    local folder only the last part is used, from within the folder around it. TransformerLens loads
    only what is in its list, by names that Hugging Face's libraries then take for the folder."""
    if not Path(model).is_dir():
        return model
    folder = Path(model).resolve()
    os.chdir(folder.parent)
    OFFICIAL_MODEL_NAMES.append(folder.name)
    return folder.name


def load_model(name: str, device: str, dtype: str = "float32") -> Any:
    """As SAEBench loads it: weights as they are, nothing folded or centred."""
    return HookedTransformer.from_pretrained_no_processing(name, device=device, dtype=dtype)
