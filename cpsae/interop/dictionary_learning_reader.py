"""dictionary_learning's trainer folders, read: config.json, and the tensors of ae.pt, which is a
pickle and never opened here, in ae.safetensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from cpsae.errors import SourceError
from cpsae.interop.dictionary_learning import CONFIG, PICKLE, SAFE
from cpsae.interop.folded import Folded
from cpsae.interop.origin import Origin, place_of
from cpsae.interop.pickles import instead_of_pickle
from cpsae.interop.published import (
    Published,
    checked,
    full,
    matrix_shape,
    read_cfg,
    read_tensors,
    whole,
)
from cpsae.sae.form import FormName
from cpsae.sae.normalization import Normalizer

FILES = ((CONFIG, SAFE), (CONFIG, PICKLE))


class _Class(NamedTuple):
    form: FormName
    names: Mapping[str, str]
    """Our names of its tensors."""
    centred: bool = True
    """Whether it encodes x - b_dec."""
    kind: str = ""
    buffers: tuple[str, ...] = ()
    """What it saves that inference does not look at."""


_LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
_PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
_THRESHOLD = {"threshold": "threshold"}
_GATED = {"r_mag": "r_mag", "gate_bias": "b_gate", "mag_bias": "b_mag", "decoder_bias": "b_dec"}
_CLASSES = {
    "AutoEncoder": _Class("relu", {**_LINEAR, "bias": "b_dec"}),
    "AutoEncoderNew": _Class("relu", {**_LINEAR, "decoder.bias": "b_dec"}, centred=False),
    "GatedAutoEncoder": _Class(
        "gated", {"encoder.weight": "W_enc", "decoder.weight": "W_dec", **_GATED}
    ),
    "JumpReluAutoEncoder": _Class("jumprelu", {**_PLAIN, **_THRESHOLD}, centred=False),
    "AutoEncoderTopK": _Class("topk", {**_LINEAR, "b_dec": "b_dec"}, buffers=("k", "threshold")),
    "BatchTopKSAE": _Class(
        "jumprelu",
        {**_LINEAR, "b_dec": "b_dec", **_THRESHOLD},
        kind="batchtopk",
        buffers=("k",),
    ),
    "MatryoshkaBatchTopKSAE": _Class(
        "jumprelu",
        {**_PLAIN, **_THRESHOLD},
        kind="matryoshka-batchtopk",
        buffers=("k", "group_sizes"),
    ),
}


def read(folder: Path, told: Origin, scaling_factor: float | None) -> Published:
    """Raises SourceError for a class that no kind of ours is like, and where the tensors are in a
    pickle alone: its text has the command that writes them in another file."""
    if scaling_factor is not None:
        raise SourceError(f"{folder}: dictionary_learning saves weights that take raw rows")
    config_path, weights_path = folder / CONFIG, folder / SAFE
    if not weights_path.is_file():
        raise SourceError(instead_of_pickle(folder / PICKLE, weights_path))
    config = read_cfg(config_path, "dictionary_learning")
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    name = str(trainer.get("dict_class"))
    if name not in _CLASSES:
        raise SourceError(
            f"{config_path}: trainer.dict_class {name}: no kind of ours is like it; taken are "
            f"{', '.join(_CLASSES)}"
        )
    known = _CLASSES[name]
    found = {k: v for k, v in read_tensors(weights_path).items() if k not in known.buffers}
    tensors = _tensors(weights_path, found, known, name)
    numbers = {}
    if "k" in known.buffers:
        numbers["k"] = whole(config_path, trainer, "k", lambda k: k <= tensors["W_dec"].shape[0])
    folded = Folded(known.kind, known.form, "none", tensors, numbers, 1.0)
    notes = []
    if "threshold" in known.names and (tensors["threshold"] < 0).all():
        notes.append(
            "its threshold was never measured (it is below 0): every latent above 0 is on, as there"
        )
    return Published(
        format="dictionary-learning",
        what=name,
        folded=folded.taking_raw() if known.centred else folded,
        normalizer=Normalizer("none"),
        origin=_origin(config, trainer).after(told),
        files=(config_path, weights_path),
        notes=tuple(notes),
    )


def _tensors(
    path: Path, found: Mapping[str, Tensor], known: _Class, name: str
) -> dict[str, Tensor]:
    """By our names, W_enc (D, N) and W_dec (N, D)."""
    linear = "encoder.weight" in known.names
    if linear:
        n, d = matrix_shape(path, found, "encoder.weight")
    else:
        d, n = matrix_shape(path, found, "W_enc")
    ours: dict[str, tuple[int, ...]] = {"W_enc": (d, n), "W_dec": (n, d), "b_dec": (d,)}
    shapes = {theirs: ours.get(mine, (n,)) for theirs, mine in known.names.items()}
    turned = ("encoder.weight", "decoder.weight")
    shapes = {key: shape[::-1] if key in turned else shape for key, shape in shapes.items()}
    if known.kind:  # of BatchTopK, one for all
        shapes["threshold"] = ()
    w = checked(path, found, shapes, name)
    w = {key: weight.T.contiguous() if key in turned else weight for key, weight in w.items()}
    tensors = {known.names[key]: weight for key, weight in w.items()}
    if known.kind:
        tensors["threshold"] = full(tensors["threshold"], n)
    return tensors


def _origin(config: Mapping[str, Any], trainer: Mapping[str, Any]) -> Origin:
    buffer, ours = config.get("buffer"), config.get("cpsae")
    buffer = buffer if isinstance(buffer, dict) else {}
    ours = ours if isinstance(ours, dict) else {}  # where cpsae exported it
    layer, submodule = trainer.get("layer"), str(trainer.get("submodule_name") or "")
    point = submodule.partition("_layer_")[0] or "resid_post"
    place = ours.get("hook_name") or (None if layer is None else f"blocks.{layer}.hook_{point}")
    return Origin.told(
        model=trainer.get("lm_name"),
        **place_of(place),
        context_size=buffer.get("ctx_len"),
        dataset=ours.get("dataset"),
        prepend_bos=ours.get("prepend_bos"),
    )
