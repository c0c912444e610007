"""`cpsae fit`: stage 2."""

from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.options import (
    Option,
    given,
    output_options,
    resolve_settings,
    settings_options,
    terminal_of,
)

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.config import Resolved

OPTIONS = [
    Option("--steps", "steps", "COUNT", "Updates; by default one epoch."),
    Option("--batch-size", "batch_size", "COUNT", "Rows an update.", "2048"),
    Option("--n-latents", "n_latents", "COUNT", "Features; by default the store's d."),
    Option("--lr", "lr", "X", "Learning rate.", "0.0003"),
    Option("--l1", "l1", "X", "Weight of the L1 term (lambda).", "0.04"),
    Option("--seed", "seed", "N", "Seed of weights and of the order of rows.", "0"),
    Option("--device", "device", "DEVICE", "auto, cpu, cuda or cuda:I.", "auto"),
]
SHOWN = ("explained_variance", "cosine", "l0", "l0_eff", "dead", "mse")


@click.command(short_help="Train a sparse autoencoder on a store.")
@click.option("--store", metavar="FOLDER", help="Its data.  [default: acts.zarr]")
@click.option(
    "--preset", metavar="NAME", help="paper, baseline, or a kind of SAE.  [default: paper]"
)
@settings_options(OPTIONS)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting; repeatable."
)
@click.option("--recipe", metavar="FILE", help="Settings from TOML, or a run's config.json.")
@click.option("--out", metavar="FOLDER", help="Run folder; by default runs/<preset>-<hash>.")
@click.option("--resume/--fresh", default=True, help="Continue (default), or move aside and begin.")
@click.option("--allow-partial", is_flag=True, help="Take a store that is not finished.")
@click.option("--print-config", is_flag=True, help="Print every setting, where it is from; stop.")
@output_options
def command(
    store: str | None,
    preset: str | None,
    assignments: tuple[str, ...],
    recipe: str | None,
    out: str | None,
    resume: bool,
    allow_partial: bool,
    print_config: bool,
    **values: Any,
) -> None:
    """Train a sparse autoencoder on the rows of a store, by default the paper's.

    Interrupted at any moment, the same command continues from its last checkpoint, and ends with
    the weights that an uninterrupted run has.
    """
    with terminal_of(values) as terminal:
        from cpsae.config import FitSettings

        repeated = _run_of(recipe)
        store = store or repeated.get("store", "acts.zarr")
        name = _known_preset(preset or repeated.get("preset", "paper"))
        resolved = resolve_settings(FitSettings, given(OPTIONS, values), assignments, recipe, name)
        if print_config:
            _print_config(terminal, resolved)
            return

        from cpsae.cli.interrupts import deferred, interruption
        from cpsae.stages.fit import fit
        from cpsae.training.fit import Stopped

        with deferred() as should_stop:
            result = fit(
                store,
                resolved.settings,
                out=out,
                preset=name,
                fresh=not resume,
                allow_partial=allow_partial,
                on_event=terminal.on_event,
                should_stop=should_stop,
            )
        if isinstance(result, Stopped):
            raise interruption()
        if not terminal.result({"path": str(result.path), **result.summary}):
            rows = [(key, result.summary[key]) for key in SHOWN]
            terminal.table(f"{result.path} (held-out rows)", rows)


def _run_of(recipe: str | None) -> dict[str, str]:
    """Store and preset of the run that a recipe repeats; nothing for any other recipe."""
    from pathlib import Path

    from cpsae.config.resolve import read_run_config

    config = read_run_config(Path(recipe)) if recipe else None
    return {"store": config["store"]["path"], "preset": config["preset"]} if config else {}


def _known_preset(name: str) -> str:
    from cpsae.config.presets import preset_names

    if name not in preset_names():
        raise click.UsageError(f"--preset {name}: expected one of {', '.join(preset_names())}")
    return name


def _print_config(terminal: "Terminal", resolved: "Resolved[Any]") -> None:
    from cpsae.config.resolve import flatten

    values = flatten(resolved.settings.model_dump(mode="json"))
    content = {k: {"value": v, "from": resolved.origins[k]} for k, v in values.items()}
    if not terminal.result(content):
        for key, value in values.items():
            terminal.print(f"{key} = {value!r}  ({resolved.origins[key]})")
