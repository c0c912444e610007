"""How a setting gets its value: option > `--set` > recipe file > preset > default."""

import codecs
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from cpsae.config.base import Settings
from cpsae.config.wording import blamed, key_of, one_line
from cpsae.errors import SettingsError

S = TypeVar("S", bound=Settings)

RECIPE = "recipe"
"""What the name of a layer that is a file begins with."""


_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"": "utf-8",
}
"""Encodings by their byte-order mark."""


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """Validated settings, and for each dotted key where its value came from."""

    settings: S
    origins: dict[str, str]


def resolve(
    settings_class: type[S],
    layers: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Any] | None = None,
    refuse: Callable[[str, str], None] | None = None,
) -> Resolved[S]:
    """Combine layers of dotted keys, the strongest first, over the defaults.

    `layers` maps a layer's name as the user knows it ("option", "--set", "recipe x.toml",
    "preset paper") to its values; `known` are all keys with their defaults, where the class alone
    does not tell; `refuse(layer, key)` may say more of an unknown key. Raises SettingsError that
    names the layer and the key.
    """
    known = defaults(settings_class) if known is None else known
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")
    for layer, given in reversed(list(layers.items())):
        for key, value in flatten(given).items():
            if key not in known:
                if refuse is not None:
                    refuse(layer, key)
                raise SettingsError(
                    f"{layer}: there is no setting '{key}'{_nearest(key, known)}",
                    from_file=layer.startswith(RECIPE),
                )
            values[key] = value
            origins[key] = layer
    try:
        return Resolved(settings_class.model_validate(nest(values)), origins)
    except ValidationError as error:
        problems = [
            (key_of(problem, settings_class.inlined), problem) for problem in error.errors()
        ]
        sources = [layer for key, _ in problems for layer in blamed(key, origins)]
        from_file = any(layer.startswith(RECIPE) for layer in sources)
        raise SettingsError(one_line(problems, origins), from_file) from None


def defaults(settings_class: type[Settings]) -> dict[str, Any]:
    """Every setting as a dotted key with its default."""
    return flatten(settings_class().model_dump(mode="json"))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"temperature": {"base": 1}} becomes {"temperature.base": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        group = nested
        for parent in parents:
            group = group.setdefault(parent, {})
        group[leaf] = value
    return nested


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Turn ("l1=0.1", "temperature.base=0.2") into keys and values; values are read as JSON where
    they are JSON, as text elsewhere. Raises SettingsError where there is no '='."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {assignment}: expected KEY=VALUE, like --set l1=0.04")
        try:
            values[key.strip()] = json.loads(text)
        except (ValueError, RecursionError):  # of numbers of thousands of digits too
            values[key.strip()] = text.strip()
    return values


def read_recipe(path: Path) -> dict[str, Any]:
    """Dotted keys of a recipe: TOML, or the config.json of a run (its `settings`).

    Raises SettingsError where the file is missing or malformed.
    """
    try:
        text = _text_of(path)
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{RECIPE} {path}: cannot be read ({error}); check the path", from_file=True
        ) from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{RECIPE} {path}: is not well-formed ({error}); correct it", from_file=True
        ) from None
    if path.suffix == ".json" and isinstance(values, dict):
        values = values.get("settings", values)
    if not isinstance(values, dict):
        raise SettingsError(
            f"{RECIPE} {path}: expected settings as KEY = VALUE, found a list", from_file=True
        )
    return flatten(values)


def _text_of(path: Path) -> str:
    """UTF-8, or what a byte-order mark says, as editors on Windows write it. Raises OSError,
    UnicodeDecodeError."""
    content = path.read_bytes()
    marked = (mark for mark in _MARKS if content.startswith(mark))
    return content.decode(_MARKS[next(marked, b"")])


def read_run_config(path: Path) -> dict[str, Any] | None:
    """The whole config.json of a run, where a recipe is one; None for any other recipe.

    Raises SettingsError where it names no store.
    """
    try:
        content = json.loads(_text_of(path)) if path.suffix == ".json" else None
    except (OSError, ValueError, RecursionError):
        return None  # `read_recipe` says what is wrong with it
    if not (isinstance(content, dict) and {"settings", "store", "preset"} <= content.keys()):
        return None
    store = content["store"]
    if "source" in content:
        raise SettingsError(
            f"{RECIPE} {path}: is of a converted run, which no settings of ours made; to go on "
            "from it give its folder as --init",
            from_file=True,
        )
    if not isinstance(store, dict) or not {"path", "identity"} <= store.keys():
        raise SettingsError(
            f'{RECIPE} {path}: its "store" does not name a store; restore the file from a copy',
            from_file=True,
        )
    return content


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One text for each dotted key whose value is not the same, as 'key: old, not new'."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key)!r}, not {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    matches = get_close_matches(key, known, n=3)
    return f": did you mean {' or '.join(matches)}?" if matches else ": see --print-config"
