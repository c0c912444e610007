"""The folder that EleutherAI's sparsify loads: cfg.json and sae.safetensors. It has TopK alone.

cpsae.json stands beside them, for people.
"""

import re
from pathlib import Path
from typing import Any

from cpsae.errors import SourceError
from cpsae.interop.exported import Files
from cpsae.interop.folded import Folded, as_bytes, fold, refuse_form, refuse_rows
from cpsae.interop.origin import Origin, place_of
from cpsae.interop.published import Published, checked, read_cfg, read_tensors, whole
from cpsae.json_files import as_json_bytes
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.normalization import Normalizer

TARGET = "sparsify"
FILES = (("cfg.json", "sae.safetensors"),)
ABOUT = "cpsae.json"
TAKES = {"topk": "topk"}
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
"""Our names of its tensors; W_enc is (D, N), encoder.weight (N, D)."""
_MORE = ("transcode", "skip_connection", "signed")
"""What an autoencoder is not, or no TopK of ours."""


def export(sae: SparseAutoencoder, origin: Origin) -> Files:
    """Raises ExportError where the kind or the normalisation has no place in it."""
    refuse_rows(sae, TARGET, "fit with --set normalize=unit, or take --to safetensors")
    folded = fold(sae)
    refuse_form(folded, TARGET, TAKES, "take --to sae-lens, dictionary-learning or safetensors")
    w = folded.taking_centred().tensors
    tensors = {theirs: w[ours] for theirs, ours in _NAMES.items()}
    tensors["encoder.weight"] = tensors["encoder.weight"].T
    return Files(
        contents={
            FILES[0][0]: as_json_bytes(_cfg(folded)),
            FILES[0][1]: as_bytes(tensors),
            ABOUT: as_json_bytes(_about(folded, origin)),
        },
        what="topk",
        d=folded.d,
        n=folded.n,
        latent_scale=folded.latent_scale,
        load='sparsify.SparseCoder.load_from_disk("{folder}")',
    )


def _cfg(folded: Folded) -> dict[str, Any]:
    return {
        "activation": "topk",
        "d_in": folded.d,
        "num_latents": folded.n,
        "expansion_factor": max(1, folded.n // folded.d),  # not looked at beside num_latents
        "k": folded.numbers["k"],
        "normalize_decoder": True,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
    }


def _about(folded: Folded, origin: Origin) -> dict[str, Any]:
    """What cfg.json has no keys for: sparsify warns of others."""
    return {
        "kind": folded.kind,
        "latent_scale": folded.latent_scale,
        "model": origin.model,
        "hook_name": origin.hook_name,
        "context_size": origin.context_size,
        "prepend_bos": origin.prepend_bos,
        "dataset": origin.dataset,
        **origin.as_json(),
    }


def read(folder: Path, told: Origin, scaling_factor: float | None) -> Published:
    """Raises SourceError for transcoders and activations other than TopK."""
    if scaling_factor is not None:
        raise SourceError(f"{folder}: sparsify takes raw rows; leave --scaling-factor out")
    cfg_path, weights_path = (folder / name for name in FILES[0])
    cfg = read_cfg(cfg_path, TARGET)
    activation = str(cfg.get("activation", "topk"))
    others = [name for name in _MORE if cfg.get(name)]
    if others or activation not in TAKES:
        what = f"{others[0]} is on" if others else f"activation {activation}"
        raise SourceError(f"{cfg_path}: {what}: no kind of ours is like it; topk is taken")
    d = whole(cfg_path, cfg, "d_in")
    key = "num_latents" if cfg.get("num_latents") else "expansion_factor"
    n = whole(cfg_path, cfg, key) * (d if key == "expansion_factor" else 1)
    shapes = {"encoder.weight": (n, d), "encoder.bias": (n,), "W_dec": (n, d), "b_dec": (d,)}
    found = checked(weights_path, read_tensors(weights_path), shapes, TARGET)
    w = {ours: found[theirs] for theirs, ours in _NAMES.items()}
    w["W_enc"] = w["W_enc"].T.contiguous()
    numbers = {"k": whole(cfg_path, cfg, "k", lambda k: k <= n)}
    return Published(
        format=TARGET,
        what=activation,
        folded=Folded("topk", "topk", "none", w, numbers, 1.0).taking_raw(),
        normalizer=Normalizer("none"),
        origin=_origin(folder).after(told),
        files=(cfg_path, weights_path),
    )


def _origin(folder: Path) -> Origin:
    """A folder is called as its module, layers.19; of the run, config.json lies beside it."""
    ours, run = ({}, {})
    if (folder / ABOUT).is_file():  # where cpsae exported it
        ours = read_cfg(folder / ABOUT, TARGET)
    if (folder.resolve().parent / "config.json").is_file():
        run = read_cfg(folder.resolve().parent / "config.json", TARGET)
    module = folder.resolve().name
    block = re.fullmatch(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)", module)
    place = f"blocks.{block[1]}.hook_resid_post" if block else module if "." in module else None
    return Origin.told(
        model=ours.get("model") or run.get("model"),
        **place_of(ours.get("hook_name") or place),
        context_size=ours.get("context_size") or run.get("ctx_len"),
        prepend_bos=ours.get("prepend_bos"),
        dataset=ours.get("dataset") or run.get("dataset"),
    )
