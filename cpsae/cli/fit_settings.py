"""How `cpsae fit` puts together what its command line gives."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.config import Resolved
    from cpsae.events import OnEvent
    from cpsae.training.settings import FitSettings
    from cpsae.training.sweep import SweepMember


def of_init(init: str | None, preset: str | None, recipe: str | None) -> tuple[str, dict[str, Any]]:
    """Preset and settings of the run that is gone on from; of none, the paper's."""
    if init is None:
        return "paper", {}
    from cpsae.stages.initial import settings_of

    return settings_of(init, whole=preset is None and recipe is None)


def layers_of(
    options: dict[str, Any],
    assignments: tuple[str, ...],
    recipe: str | None,
    preset: str,
    from_init: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """What was given, the strongest first."""
    from cpsae.config.resolve import RECIPE, parse_assignments
    from cpsae.errors import SettingsError
    from cpsae.training.recipes import fit_recipe
    from cpsae.training.recipes import preset as preset_values

    layers = {"option": options, "--set": parse_assignments(assignments)}
    if from_init and "init" in layers["--set"]:
        raise SettingsError("--set init: is of a run that begins anew; leave it or --init out")
    if recipe is not None:
        layers[f"{RECIPE} {recipe}"] = fit_recipe(Path(recipe))
    layers["--init"] = from_init
    layers[f"preset {preset}"] = preset_values(preset)
    return layers


def resolved(layers: dict[str, dict[str, Any]]) -> "Resolved[FitSettings]":
    """The settings, and where each is from."""
    from cpsae.training.recipes import resolve_fit

    return resolve_fit(layers)


def members_of(axes: tuple[str, ...], layers: dict[str, dict[str, Any]]) -> "list[SweepMember]":
    """The runs of a sweep; none where there is no --sweep."""
    from cpsae.errors import SettingsError
    from cpsae.training.sweep import members, parse_axes

    if not axes:
        return []
    parsed = parse_axes(axes)
    for key in parsed:
        for layer in ("option", "--set"):
            if key in layers[layer]:
                raise SettingsError(f"--sweep {key}: is given by {layer} too; leave one out")
    return members(parsed, lambda chosen: resolved({"--sweep": dict(chosen), **layers}).settings)


def run_of(recipe: str | None, on_event: "OnEvent") -> dict[str, str]:
    """Store and preset of the run that a recipe repeats; nothing for any other recipe."""
    from cpsae.config.resolve import read_run_config

    config = read_run_config(Path(recipe)) if recipe else None
    if config is None:
        return {}
    if any(entry.get("stretched") for entry in config.get("lengthened", [])):
        from cpsae.events import Note

        text = f"{recipe}: that run was given more steps with --stretch; from its start on, another"
        on_event(Note(f"{text} comes out", "warning"))
    store = config["store"]
    run = {"store": store["path"], "identity": store["identity"], "preset": config["preset"]}
    return run | ({"init": config["init"]["path"]} if "init" in config else {})


def show_config(
    terminal: "Terminal", chosen: "Resolved[FitSettings]", axes: tuple[str, ...]
) -> None:
    """Every setting, and where it is from."""
    from cpsae.config.resolve import flatten

    values = flatten(chosen.settings.model_dump(mode="json"))
    content = {k: {"value": v, "from": chosen.origins[k]} for k, v in values.items()}
    if not terminal.result(content):
        for key, value in values.items():
            terminal.print(f"{key} = {value!r}  ({chosen.origins[key]})")
        for axis in axes:
            terminal.print(f"swept: {axis}")
