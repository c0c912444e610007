"""From keywords to settings, and what is said of a keyword that there is not."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from cpsae.api.keywords import ExtractKeywords, FitKeywords
from cpsae.config import ExtractSettings, Settings, resolve
from cpsae.config.resolve import flatten
from cpsae.errors import SettingsError
from cpsae.sae.kinds import kinds_with_setting
from cpsae.training.recipes import preset as preset_values
from cpsae.training.recipes import resolve_fit
from cpsae.training.settings import FitSettings

F = TypeVar("F", bound=Callable[..., Any])
_LAYER = "keyword"
"""What an error calls the place that a value is from."""

_PRESET = "paper"
NOTHING: Mapping[str, Any] = MappingProxyType({})

_ELSEWHERE = {
    "learning_rate": "lr",
    "d_sae": "n_latents",
    "dict_size": "n_latents",
    "width": "n_latents",
    "num_latents": "n_latents",
    "epochs": "steps",
    "max_steps": "steps",
    "l1_coefficient": "l1",
    "l0": "target_l0",
    "optim": "optimizer",
    "normalize_activations": "normalize",
    "architecture": "kind",
    "model_name": "model",
    "dataset_path": "dataset",
    "hook_name": "hook",
    "context_size": "tokens",
    "ctx_len": "tokens",
    "num_tokens": "vectors",
    "training_tokens": "vectors",
    "prepend_bos": "keep_bos",
}
"""What other libraries call our settings."""


class Unset:
    """The default of a keyword that is not given: what the preset says."""

    def __repr__(self) -> str:
        return "..."


def extract_settings(
    settings: ExtractSettings | None, keywords: Mapping[str, Any]
) -> ExtractSettings:
    """The settings with the keywords put over them. Raises SettingsError."""
    _refuse_foreign("extract", settings, ExtractSettings)
    _refuse_unknown("extract", keywords, ExtractKeywords.__annotations__)
    if settings is not None and not keywords:
        return settings
    given = {} if settings is None else settings.model_dump(exclude_unset=True)
    return resolve(ExtractSettings, {_LAYER: _plain(keywords), "settings": given}).settings


def begun_from(
    settings: FitSettings | None, preset: str, init_run: str | os.PathLike[str] | None
) -> tuple[str, Mapping[str, Any]]:
    """The preset, and what of the settings a run settles that is gone on from, unless all are
    given. Raises RunError."""
    if init_run is None or settings is not None:
        return preset, {}
    from cpsae.stages.initial import settings_of

    own, values = settings_of(os.fspath(init_run), whole=preset == _PRESET)
    return (own if preset == _PRESET else preset), values


def fit_settings(
    settings: FitSettings | None,
    preset: str,
    keywords: Mapping[str, Any],
    from_run: Mapping[str, Any] = NOTHING,
) -> FitSettings:
    """The settings, or the preset's where there are none, with the keywords put over them. Raises
    SettingsError. from_run: put over the preset's, under the keywords."""
    _refuse_foreign("fit", settings, FitSettings)
    if settings is not None and not keywords:
        return settings
    known = [*FitKeywords.__annotations__, *(key for key in keywords if kinds_with_setting(key))]
    _refuse_unknown("fit", keywords, known)
    layers = {_LAYER: _plain(keywords), **_below(settings, preset, from_run)}
    return resolve_fit(layers).settings


def fit_settings_of(
    settings: FitSettings | None,
    preset: str,
    init_run: str | os.PathLike[str] | None,
    keywords: Mapping[str, Any],
) -> tuple[str, FitSettings]:
    """`begun_from` and `fit_settings`: the preset and the settings of a fit."""
    preset, from_run = begun_from(settings, preset, init_run)
    return preset, fit_settings(settings, preset, keywords, from_run)


def sweep_settings(
    settings: FitSettings | None,
    preset: str,
    keywords: Mapping[str, Any],
    from_run: Mapping[str, Any] = NOTHING,
) -> Callable[[Mapping[str, Any]], FitSettings]:
    """`fit_settings` of whatever a sweep varies besides. Raises SettingsError."""
    fit_settings(settings, preset, keywords, from_run)

    def varied(chosen: Mapping[str, Any]) -> FitSettings:
        layers = {_LAYER: _plain(keywords), **_below(settings, preset, from_run)}
        return resolve_fit({"sweep": chosen, **layers}).settings

    return varied


def with_keywords(keywords: type) -> Callable[[F], F]:
    """Show a function's settings one by one where Python itself is asked for its signature: help(),
    and the completion of notebooks. keywords: its TypedDict."""

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        settings = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=Unset(), annotation=hint
            )
            for name, hint in get_type_hints(keywords).items()
        ]
        shown_signature = signature.replace(parameters=[*own, *settings])
        function.__signature__ = shown_signature  # type: ignore[attr-defined]
        return function

    return shown


def _below(
    settings: FitSettings | None, preset: str, from_run: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """What keywords are put over."""
    if settings is None:
        return {"init_run": from_run, f"preset {preset}": preset_values(preset)}
    return {"settings": settings.model_dump(mode="json")}


def _plain(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys; a group may be given as an object of its class."""
    return flatten(
        {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in keywords.items()}
    )


def _refuse_foreign(function: str, settings: Any, settings_class: type[Settings]) -> None:
    if settings is not None and not isinstance(settings, settings_class):
        raise SettingsError(
            f"{function}(settings = {settings!r}): expected {settings_class.__name__}; give single "
            "settings by their names, like seed=1"
        )


def _refuse_unknown(function: str, keywords: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises SettingsError that names a keyword that there is not, and the nearest right one."""
    import cpsae  # whose function it is: its own parameters count too

    names = {*known, *inspect.signature(getattr(cpsae, function)).parameters}
    for key in keywords:
        if key.partition(".")[0] in names:
            continue
        near = [_ELSEWHERE[key]] if _ELSEWHERE.get(key) in names else []
        near += get_close_matches(key, sorted(names), n=1)
        advice = f"did you mean {near[0]}?" if near else f"help(cpsae.{function}) lists them"
        raise SettingsError(f"{function}() has no keyword '{key}': {advice}")
