"""Which runs a sweep is: the product of the values that are given for each of its keys."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cpsae.config.resolve import flatten
from cpsae.errors import SettingsError
from cpsae.training.settings import FeedSettings, FitSettings

MOST_MEMBERS = 256
_SHARED = (*FeedSettings.model_fields, "steps")
"""Keys that the feed or the length of the run owns: all runs of a sweep have them in common."""
OF_THE_MACHINE = ("device", "split", "log_every", "checkpoint_every", "keep_checkpoints")
"""Keys that say how runs are made, not what they are."""


class Value(NamedTuple):
    """A value as it was typed, and what it says."""

    typed: str
    value: Any


Axes = dict[str, list[Value]]


@dataclass(frozen=True)
class SweepMember:
    """One run of a sweep."""

    folder: str
    """`KEY=VALUE[,KEY=VALUE]`, keys in the order given, values as typed."""
    values: dict[str, Any]
    """The swept keys with their values."""
    settings: FitSettings


def parse_axes(options: Sequence[str]) -> Axes:
    """Turn ("k=8,16", "lr=1e-3,3e-4") into keys and values; values are read as JSON where they are
    JSON, as text elsewhere. Raises SettingsError for what cannot be swept."""
    axes: Axes = {}
    for option in options:
        key, equals, text = (piece.strip() for piece in option.partition("="))
        values = [_value(typed.strip()) for typed in text.split(",")]
        if not equals or not key:
            raise SettingsError(f"--sweep {option}: expected KEY=V1,V2, like --sweep l1=0.02,0.04")
        _refuse_key(key, axes)
        _refuse_values(option, values)
        axes[key] = values
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MOST_MEMBERS:
        raise SettingsError(
            f"--sweep: {count} runs are more than {MOST_MEMBERS}; split the sweep into several"
        )
    return axes


def members(
    axes: Axes, settings_with: Callable[[Mapping[str, Any]], FitSettings]
) -> list[SweepMember]:
    """All combinations, the last key's values changing fastest. `settings_with` gives the settings
    with these keys set; what it raises is raised."""
    found = []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        settings = settings_with({key: value.value for key, value in chosen.items()})
        flat = flatten(settings.model_dump(mode="json"))
        found.append(
            SweepMember(
                folder=",".join(f"{key}={value.typed}" for key, value in chosen.items()),
                values={key: flat[key] for key in chosen},
                settings=settings,
            )
        )
    return found


def _value(typed: str) -> Value:
    try:
        return Value(typed, json.loads(typed))
    except json.JSONDecodeError:
        return Value(typed, typed)


def _refuse_key(key: str, axes: Axes) -> None:
    if key in axes:
        raise SettingsError(f"--sweep {key}: is given twice; put all its values into one")
    if key in _SHARED:
        raise SettingsError(
            f"--sweep {key}: all runs of a sweep share one feed and one number of steps; run one "
            f"sweep for each {key}, with --set {key}=VALUE"
        )
    if key in OF_THE_MACHINE:
        raise SettingsError(
            f"--sweep {key}: says how runs are made, not what they are; give it with --set"
        )


def _refuse_values(option: str, values: Sequence[Value]) -> None:
    if len(values) < 2:
        raise SettingsError(f"--sweep {option}: one value is no sweep; give more, or use --set")
    for value in values:
        if not value.typed or "/" in value.typed:
            raise SettingsError(
                f"--sweep {option}: '{value.typed}' cannot name a run folder; a value may not be "
                "empty or hold a /"
            )
    if len({json.dumps(value.value) for value in values}) < len(values):
        raise SettingsError(f"--sweep {option}: a value is given twice")
