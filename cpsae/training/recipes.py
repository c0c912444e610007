"""How the settings of a fit come together: presets, recipes, and a kind's own keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpsae.config import Resolved, resolve
from cpsae.config.resolve import RECIPE, flatten, nest, read_recipe, read_run_config
from cpsae.errors import SettingsError
from cpsae.sae.kinds import kind_names, kinds_with_setting, load_kind
from cpsae.training.settings import DEFAULT_KIND, FitSettings, refuse_key_of_another_kind

_NAMED: dict[str, dict[str, Any]] = {
    "paper": {},
    "baseline": {"kind": "relu", "growth": "none"},
}


_FRONTIER = "lca-batchtopk"
"""The kind whose own preset `frontier` is."""


def preset_names() -> list[str]:
    """`paper`, `baseline` and `frontier`, then one preset for each kind of SAE."""
    return [*_NAMED, "frontier", *kind_names()]


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, as dotted keys; it holds only what differs from the defaults.

    `baseline` is the paper's: all features from step 0 and no competition; `frontier` is what
    reconstructs best of what we have tried (docs/experiments.md). A kind's own preset is what the
    kind says. Raises SettingsError for an unknown name.
    """
    if name in _NAMED:
        return dict(_NAMED[name])
    name = _FRONTIER if name == "frontier" else name
    if name not in kind_names():
        raise SettingsError(f"preset {name}: expected one of {', '.join(preset_names())}")
    return {"kind": name, **load_kind(name).Settings.preset}


def resolve_fit(layers: Mapping[str, Mapping[str, Any]]) -> Resolved[FitSettings]:
    """Combine layers of dotted keys, the strongest first, as `cpsae.config.resolve` does; which
    keys there are depends on the kind. Raises SettingsError, by name for another kind's key."""
    flat = {layer: flatten(values) for layer, values in layers.items()}
    source = next((layer for layer, values in flat.items() if "kind" in values), "")
    kind = flat[source]["kind"] if source else DEFAULT_KIND
    try:
        known = _defaults_of(kind)
    except SettingsError as error:
        from_file = source.startswith(RECIPE)
        raise SettingsError(f"kind = {kind!r} (from {source}): {error}", from_file) from None

    def refuse(layer: str, key: str) -> None:
        try:
            refuse_key_of_another_kind(key, kind, f"{layer}: ")
        except SettingsError as error:
            raise SettingsError(str(error), from_file=layer.startswith(RECIPE)) from None

    own = {
        layer: _without_idle(values, known, layer.endswith(".json"))
        for layer, values in flat.items()
    }
    return resolve(FitSettings, own, known, refuse)


def fit_recipe(path: Path) -> dict[str, Any]:
    """Dotted keys of a recipe: TOML, or the config.json of a run. One of cpsae 0.1 had one seed for
    the weights and the order of rows. Raises SettingsError where it is missing or malformed."""
    values = read_recipe(path)
    if read_run_config(path) is not None:
        values.setdefault("order_seed", values.get("seed", 0))
    return values


def known_to_0_1(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the config.json of a run of cpsae 0.1 as this release writes them: it had one
    seed, and no loss on dead latents."""
    flat = flatten(settings)
    known = _defaults_of(str(flat.get("kind", DEFAULT_KIND)))
    without_loss = {"aux_k": 0} if "aux_k" in known else {}
    then = {"order_seed": flat.get("seed", 0), **without_loss}
    return _without_idle({**then, **flat}, known, idle=True)


def with_newer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a run's config.json with those that came after it: a setting that is added
    does by default what was done before. As they are where this release does not take them."""
    try:
        return FitSettings.model_validate(nest(flatten(settings))).model_dump(mode="json")
    except (ValidationError, SettingsError):
        return dict(settings)


def _defaults_of(kind: str) -> dict[str, Any]:
    """All settings of a run of this kind, as dotted keys with their defaults."""
    return flatten(FitSettings(kind=kind).model_dump(mode="json"))


def _without_idle(
    values: Mapping[str, Any], known: Mapping[str, Any], idle: bool
) -> dict[str, Any]:
    """A run's config.json holds every setting, so those of other kinds that stand at their
    defaults were never asked for."""
    if not idle:
        return dict(values)
    return {
        key: value
        for key, value in values.items()
        if key in known or not _at_default_elsewhere(key, value)
    }


def _at_default_elsewhere(key: str, value: Any) -> bool:
    return any(
        flatten(load_kind(kind).Settings().model_dump(mode="json")).get(key) == value
        for kind in kinds_with_setting(key)
    )
