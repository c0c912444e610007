"""Named sets of settings. A preset holds only what differs from the defaults (`paper`)."""

from typing import Any

from cpsae.config.training import kind_names

_NAMED: dict[str, dict[str, Any]] = {
    "paper": {},
    "baseline": {"kind": "relu", "growth": "none"},
}


def preset_names() -> list[str]:
    """`paper` and `baseline`, then one preset for each kind of SAE."""
    return [*_NAMED, *kind_names()]


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, as dotted keys. Raises KeyError for an unknown name.

    `baseline` is the paper's: all features from step 0 and no competition. A kind's own preset is
    the `baseline` with that kind, except `competitive`, which is `paper`.
    """
    if name in _NAMED:
        return dict(_NAMED[name])
    if name not in kind_names():
        raise KeyError(name)
    return {} if name == "competitive" else {"kind": name, "growth": "none"}
