"""The kinds of autoencoder: one file each here, or one entry point of the group `cpsae.kinds` in
another package. Imports no torch by itself."""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from cpsae.errors import SettingsError, first_line

if TYPE_CHECKING:
    from cpsae.sae.kind import Kind

GROUP = "cpsae.kinds"


def kind_names() -> list[str]:
    """The kinds that can be asked for, by name; none of them is imported."""
    return sorted({*_own_names(), *_declared()})


def load_kind(name: str) -> "type[Kind]":
    """The class of a kind.

    Raises SettingsError where there is none of this name, where two packages declare it, or where
    the package that does cannot be imported (its name is in the text).
    """
    if name in _own_names():
        _refuse_second(name)
        return _only_kind_of(f"{__name__}.{name.replace('-', '_')}")
    if name not in _declared():
        raise SettingsError(f"no kind of SAE is called '{name}': take {', '.join(kind_names())}")
    return _load_declared(name, *_declared()[name])


def kinds_with_setting(key: str) -> list[str]:
    """The kinds that have a setting of their own of this (dotted) name. A kind that cannot be
    imported has none."""
    found = []
    for name in kind_names():
        try:
            settings = load_kind(name).Settings
        except SettingsError:
            continue
        if key.partition(".")[0] in settings.model_fields:
            found.append(name)
    return found


def _own_names() -> list[str]:
    own_folder = Path(__file__).parent
    return [path.stem.replace("_", "-") for path in own_folder.glob("[a-z]*.py")]


@cache
def _declared() -> dict[str, list[EntryPoint]]:
    """Entry points by name. One that is installed twice (an old copy's metadata) counts once."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, {})[entry.value] = entry
    return {name: list(entries.values()) for name, entries in found.items()}


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module


def _refuse_second(name: str, *entries: EntryPoint) -> None:
    packages = [_package(entry) for entry in entries or _declared().get(name, [])]
    if packages:
        others = " and ".join(packages if entries else ["cpsae itself", *packages])
        raise SettingsError(f"the kind '{name}' is declared by {others}; uninstall one of them")


def _load_declared(name: str, entry: EntryPoint, *others: EntryPoint) -> "type[Kind]":
    if others:
        _refuse_second(name, entry, *others)
    from cpsae.sae.kind import Kind

    where = f"the kind '{name}' of the package {_package(entry)} ({entry.value})"
    try:
        kind = entry.load()
    except Exception as error:  # whatever somebody else's module raises while it is imported
        raise SettingsError(
            f"{where} cannot be imported ({type(error).__name__}: {first_line(error)}); mend or "
            "uninstall that package"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Kind)):
        raise SettingsError(f"{where} is no subclass of cpsae.sae.kind.Kind; mend that package")
    if getattr(kind, "name", None) != name:
        raise SettingsError(
            f"{where} calls itself '{getattr(kind, 'name', None)}'; name and entry point must agree"
        )
    return kind


def _only_kind_of(module_name: str) -> "type[Kind]":
    module = import_module(module_name)
    from cpsae.sae.kind import Kind

    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Kind) and value.__module__ == module_name
    ]
    if len(defined) != 1:
        raise TypeError(f"{module_name} must define one subclass of Kind, not {len(defined)}")
    return defined[0]
