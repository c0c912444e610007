"""SAELens' folders, read: those of `save_model`, of any release, and those of checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpsae.errors import SourceError
from cpsae.interop.folded import Folded, layer_norm_scale
from cpsae.interop.origin import Origin, place_of
from cpsae.interop.published import (
    Published,
    checked,
    full,
    read_cfg,
    read_tensors,
    renamed,
    whole,
    without_ones,
)
from cpsae.interop.sae_lens import ARCHITECTURES, FILES, OWN
from cpsae.sae.form import FormName
from cpsae.sae.normalization import Normalizer

_FORMS: dict[str, FormName] = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
}
"""What SAELens' architectures compute at inference."""
_TRAINED_TOPK = {"batchtopk": "batchtopk", "matryoshka_batchtopk": "matryoshka-batchtopk"}
"""Architectures of training alone, in checkpoints, and the kinds of ours that are trained so."""
_RENAMED = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
"""Keys of before 6.0."""
_SCALER = "activation_scaler.json"
_WHITENING = ": fold the whitening with SAELens (fold_activation_whitening) and save it again"


def read(folder: Path, told: Origin, scaling_factor: float | None) -> Published:
    """Of `SAE.save_model` or `TrainingSAE.save_inference_model`, of any release, or a checkpoint's.
    Raises SourceError for an architecture, normalisation or activation that no kind is like."""
    cfg_path, weights_path = (folder / name for name in FILES[0])
    cfg = _as_since_6(read_cfg(cfg_path, "SAELens"))
    architecture = str(cfg["architecture"])
    if architecture not in _FORMS:
        taken = f"no kind of ours is like it; of SAELens' {', '.join(_FORMS)} are taken"
        if architecture in (ARCHITECTURES[form] for form in OWN):
            taken = "was exported by cpsae: take the run that it was exported from"
        raise SourceError(f"{cfg_path}: architecture {architecture}: {taken}")
    if cfg["activation_fn"] not in ("relu", "topk"):
        raise SourceError(
            f"{cfg_path}: activation_fn {cfg['activation_fn']}: no kind of ours has it; relu and "
            "topk are taken"
        )
    d, n = whole(cfg_path, cfg, "d_in"), whole(cfg_path, cfg, "d_sae")
    found = without_ones(read_tensors(weights_path), "scaling_factor", weights_path)
    w = checked(weights_path, found, _shapes(architecture, d, n), f"architecture {architecture}")
    if "topk_threshold" in w:
        w["threshold"] = full(w.pop("topk_threshold"), n)
    folded = Folded("", _FORMS[architecture], "none", w, {}, 1.0)
    if architecture == "topk":
        folded = renamed(folded, "topk", k=whole(cfg_path, cfg, "k", lambda k: k <= n))
    if cfg["apply_b_dec_to_input"]:
        folded = folded.taking_raw()
    if cfg["rescale_acts_by_decoder_norm"]:
        folded = _by_decoder_norm(folded)
    folded = _as_trained(folded, architecture, cfg)
    folded, normalizer, notes = _normalized(folded, cfg, folder, scaling_factor)
    if cfg.get("reshape_activations", "none") != "none":
        notes.append("its rows are those of all heads, one after the other, as one row")
    kwargs = cfg["metadata"].get("model_from_pretrained_kwargs")
    if kwargs:
        notes.append(
            f"its model was loaded with {json.dumps(kwargs)}: rows of another one may differ"
        )
    return Published(
        format="sae-lens",
        what=architecture,
        folded=folded,
        normalizer=normalizer,
        origin=_origin(cfg["metadata"], told),
        files=(cfg_path, weights_path),
        notes=tuple(notes),
    )


def _as_since_6(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """With the names and defaults of now. Until 6.0 metadata stood beside the rest; what is nested
    is taken all the same, also where no version is named."""
    old = {_RENAMED.get(key, key): value for key, value in cfg.items()}
    nested = cfg.get("metadata")
    kwargs = old.get("activation_fn_kwargs")
    kwargs = kwargs if isinstance(kwargs, Mapping) else {}
    known = {"architecture": "standard", "activation_fn": "relu", "apply_b_dec_to_input": True}
    known |= {key: value for key, value in old.items() if value is not None}
    known["metadata"] = {**old, **(nested if isinstance(nested, Mapping) else {})}
    if known["activation_fn"] == "topk" and known["architecture"] == "standard":
        known |= {"architecture": "topk", "k": kwargs.get("k", old.get("k"))}
    by_default = (
        str(known["architecture"]) in _TRAINED_TOPK
    )  # of what trains; of inference it is off
    known.setdefault("rescale_acts_by_decoder_norm", by_default)
    normalized = known.get("normalize_activations", "none")
    if isinstance(normalized, bool):
        normalized = "expected_average_only_in" if normalized else "none"
    return {**known, "normalize_activations": normalized}


def _shapes(architecture: str, d: int, n: int) -> dict[str, tuple[int, ...]]:
    """Of the tensors of an architecture: loading is strict there, too."""
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d, n), "W_dec": (n, d), "b_dec": (d,)}
    own = {"jumprelu": ("b_enc", "threshold"), "gated": ("b_gate", "b_mag", "r_mag")}
    shapes |= dict.fromkeys(own.get(architecture, ("b_enc",)), (n,))
    return {**shapes, "topk_threshold": ()} if architecture in _TRAINED_TOPK else shapes


def _by_decoder_norm(folded: Folded) -> Folded:
    """Latents are compared as those of decoder rows of norm 1: so such rows give the same. What
    they are compared with is in those units already."""
    unit = folded.with_unit_rows()
    kept = {name: folded.tensors[name] for name in ("threshold",) if name in folded.tensors}
    return replace(unit, tensors={**unit.tensors, **kept})


def _as_trained(folded: Folded, architecture: str, cfg: Mapping[str, Any]) -> Folded:
    """What BatchTopK trained is saved as JumpReLU; it can go on as what it was."""
    metadata = cfg["metadata"]
    trained = _TRAINED_TOPK.get(str(metadata.get("training_architecture") or architecture))
    details = metadata.get("training_architecture_details") or cfg
    k = details.get("k") if isinstance(details, Mapping) else None
    if folded.form != "jumprelu" or trained is None or not isinstance(k, int | float):
        return folded
    return renamed(folded, trained, k=int(k) if k == int(k) else k)


def _normalized(
    folded: Folded, cfg: Mapping[str, Any], folder: Path, scaling_factor: float | None
) -> tuple[Folded, Normalizer, list[str]]:
    """The same function of rows as one of our normalisations gives them."""
    match cfg["normalize_activations"]:
        case "none":
            if scaling_factor is not None:
                raise SourceError(
                    f"{folder}: normalize_activations is none, so that --scaling-factor has no use"
                )
            return folded, Normalizer("none"), []
        case "layer_norm":
            scale = 1 / layer_norm_scale("layer", folded.d)
            note = (
                "SAELens' layer_norm adds 1e-5 to each row's standard deviation, ours does not: "
                "latents differ by a part of 1e-5 divided by it"
            )
            return replace(folded.times(scale), rows="layer"), Normalizer("layer"), [note]
        case "expected_average_only_in":
            factor = scaling_factor or _scaling_factor(folder)
            return folded, Normalizer("sqrt-d", 1 / factor), []
    raise SourceError(
        f"{folder}: normalize_activations {cfg['normalize_activations']}: no kind of ours has it; "
        "none, layer_norm and expected_average_only_in are taken"
        + _WHITENING
        * (cfg["normalize_activations"] == "covariance_whitening")
    )


def _scaling_factor(folder: Path) -> float:
    """Of a checkpoint. SAELens forgets of others that there is one, and loads another function."""
    path = folder / _SCALER
    value = read_cfg(path, "SAELens").get("scaling_factor") if path.is_file() else None
    if not isinstance(value, int | float) or not value > 0:
        raise SourceError(
            f"{folder}: normalize_activations expected_average_only_in: in training its rows were "
            "multiplied by one number, which the folder does not hold; give it as --scaling-factor "
            "(sqrt(d) divided by the rows' mean norm; SAELens' list calls it norm_scaling_factor), "
            "or 1 where the weights take raw rows already"
        )
    return float(value)


def _origin(metadata: Mapping[str, Any], told: Origin) -> Origin:
    positions = metadata.get("seqpos_slice") or [None]
    return Origin.told(
        model=metadata.get("model_name"),
        model_revision=metadata.get("model_revision"),
        **place_of(metadata.get("hook_name")),
        context_size=metadata.get("context_size"),
        first_position=positions[0] if isinstance(positions, list | tuple) else None,
        prepend_bos=metadata.get("prepend_bos"),
        dataset=metadata.get("dataset_path"),
    ).after(told)
