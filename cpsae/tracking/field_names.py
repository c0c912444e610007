"""What figures are called in trackers: SAELens' names, where it has one for the same thing."""

from collections.abc import Mapping
from typing import Any

from cpsae.hub import last_part
from cpsae.json_files import object_at

_NAMES = {
    "loss": "losses/overall_loss",
    "mse": "losses/mse_loss",
    "aux": "losses/auxiliary_reconstruction_loss",
    "l0": "metrics/l0",
    "l1": "metrics/l1",
    "utilisation": "sparsity/utilisation",
    "n_enabled": "details/n_enabled",
    "growth": "details/growth",
    "temperature": "details/temperature",
    "lr": "details/current_learning_rate",
    "seconds": "details/seconds",
    "rows_per_second": "details/rows_per_second",
}
"""Of metrics.jsonl. `l1` is the mean sum of latents, penalised or not, so it is no loss."""
_SAMPLES = "details/n_training_samples"


def of_step(line: Mapping[str, Any], batch_size: int) -> dict[str, float]:
    """A line of metrics.jsonl under the field's names; what the kind adds of its loss is under
    `losses/`, and what is null is left out."""
    named = {
        _NAMES.get(key, f"losses/{key}"): float(value)
        for key, value in line.items()
        if key != "step" and _is_number(value)
    }
    return {**named, _SAMPLES: float(line["step"] * batch_size)}


def of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """summary.json: figures of held-out rows under `evaluation/`, and explained variance under the
    name that every SAE's has too."""
    named = {f"evaluation/{key}": float(v) for key, v in summary.items() if _is_number(v)}
    if _is_number(summary.get("explained_variance")):
        named["metrics/explained_variance"] = float(summary["explained_variance"])
    return named


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's config.json: every setting, and what was trained on what, without any path of this
    machine."""
    manifest = object_at(object_at(config, "store"), "manifest")
    model, hook = object_at(manifest, "model"), object_at(manifest, "hook")
    about = {
        "preset": config.get("preset"),
        "store/identity": object_at(config, "store").get("identity"),
        "store/model": last_part(model.get("id")),
        "store/model_revision": model.get("revision"),
        "store/layer": hook.get("layer"),
        "store/hook": hook.get("name"),
        "store/dataset": last_part(object_at(manifest, "dataset").get("id")),
        "store/d": manifest.get("d"),
        "store/vectors": manifest.get("vectors"),
        **{f"software/{name}": text for name, text in object_at(config, "software").items()},
    }
    flat = {**_flat(object_at(config, "settings")), **about}
    return {key: value for key, value in flat.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value if isinstance(value, bool | int | float) else str(value)
    return {key: value for key, value in flat.items() if value != "None"}
