"""Gemma Scope's parameters, read: params.npz of the first release, .safetensors of the second.

Both are JumpReLU and take raw rows. What they are of, the names of their folders say.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpsae.errors import SourceError, first_line
from cpsae.interop.array_files import UNREADABLE
from cpsae.interop.folded import Folded
from cpsae.interop.origin import Origin, place_of
from cpsae.interop.published import Published, checked, matrix_shape, read_cfg, read_tensors
from cpsae.sae.normalization import Normalizer

FILES = (("params.npz",), ("params.safetensors",))
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, RuntimeError, KeyError)
"""What else is raised for damaged archives; RuntimeError for encrypted ones."""
_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}
"""Of the second release."""
_POINTS = {
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "attn.hook_z",  # what goes into the last product of attention, all heads
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
}
"""Places, as parts of the folders' and repositories' names say them."""
_REPOSITORY = re.compile(
    r"gemma-scope-(?P<second>2-)?(?P<size>\d+[bm])-(?P<tuned>pt|it)(-(?P<what>\w+))?"
)


def read(folder: Path, told: Origin, scaling_factor: float | None) -> Published:
    """Raises SourceError where the parameters are damaged, or of what is no autoencoder of rows."""
    if scaling_factor is not None:
        raise SourceError(f"{folder}: Gemma Scope takes raw rows; leave --scaling-factor out")
    names = folder.resolve().parts
    for other in ("transcoder", "clt", "crosscoder", "embedding"):
        if any(other in name for name in names):
            raise SourceError(
                f"{folder}: is of the {other} kind, which no kind of ours is like; its "
                "autoencoders of resid_post, mlp_out and attn_out are taken"
            )
    path = next(folder / file for (file,) in FILES if (folder / file).is_file())
    found = _read_npz(path) if path.suffix == ".npz" else read_tensors(path)
    found = {_NAMES.get(name, name): tensor for name, tensor in found.items()}
    d, n = matrix_shape(path, found, "W_enc")
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d, n),
        "b_enc": (n,),
        "W_dec": (n, d),
        "b_dec": (d,),
        "threshold": (n,),
    }
    return Published(
        format="gemma-scope",
        what="jumprelu",
        folded=Folded("", "jumprelu", "none", checked(path, found, shapes, "JumpReLU"), {}, 1.0),
        normalizer=Normalizer("none"),
        origin=_origin(folder, names).after(told),
        files=(path,),
    )


def _read_npz(path: Path) -> dict[str, Tensor]:
    """Without pickles. Raises SourceError."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: torch.from_numpy(content[name]) for name in content.files}
    except (*UNREADABLE, *_NO_ARCHIVE) as error:
        raise SourceError(f"{path}: cannot be read ({first_line(error)}); fetch it again") from None


def _origin(folder: Path, names: tuple[str, ...]) -> Origin:
    """Of google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71, in the hub's cache too."""
    known: dict[str, Any] = {}
    layer = next((m[1] for name in names if (m := re.search(r"layer_(\d+)", name))), None)
    repository = next((m for name in names if (m := _REPOSITORY.search(name))), None)
    what = next((name for name in names if name in _POINTS), None)
    if repository is not None:
        tuned = "-it" if repository["tuned"] == "it" else ""
        known["model"] = f"google/gemma-2-{repository['size']}{tuned}"
        what = what or repository["what"]
        if repository["second"]:
            known["model"] = f"google/gemma-3-{repository['size']}-{repository['tuned']}"
    if layer is not None and what in _POINTS:
        known |= place_of(f"blocks.{layer}.{_POINTS[what]}")
    config = folder / "config.json"
    if config.is_file():
        known["model"] = read_cfg(config, "Gemma Scope").get("model_name") or known.get("model")
    return Origin.told(**known)
