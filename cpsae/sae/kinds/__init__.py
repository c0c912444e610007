"""The kinds of autoencoder, one file each, found by the file's name. Imports no torch by itself."""

from importlib import import_module
from typing import TYPE_CHECKING

from cpsae.config.training import kind_names
from cpsae.errors import SettingsError

if TYPE_CHECKING:
    from cpsae.sae.kind import Kind


def load_kind(name: str) -> "type[Kind]":
    """The class of a kind: the one subclass of `Kind` that cpsae.sae.kinds.<name> defines.

    Raises SettingsError where there is no such file.
    """
    if name not in kind_names():
        raise SettingsError(f"no kind of SAE is called '{name}': take {', '.join(kind_names())}")
    module = import_module(f"{__name__}.{name}")
    from cpsae.sae.kind import Kind

    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Kind)
        and value.__module__ == module.__name__
    ]
    if len(defined) != 1:
        raise TypeError(f"{module.__name__} must define one subclass of Kind, not {len(defined)}")
    return defined[0]
