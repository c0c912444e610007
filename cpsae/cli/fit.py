"""`cpsae fit`: stage 2."""

from typing import TYPE_CHECKING, Any

import click

from cpsae.cli.fit_settings import (
    layers_of,
    members_of,
    of_init,
    resolved,
    run_of,
    show_config,
)
from cpsae.cli.options import (
    Option,
    given,
    output_options,
    settings_options,
    terminal_of,
    usage_errors,
)

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.stages.fit import FitResult
    from cpsae.stages.sweep import SweepResult
    from cpsae.training.loop import Stopped
    from cpsae.training.settings import FitSettings
    from cpsae.training.sweep import SweepMember

OPTIONS = [
    Option("--steps", "steps", "COUNT", "Updates; by default one epoch."),
    Option("--batch-size", "batch_size", "COUNT", "Rows an update.", "2048"),
    Option("--n-latents", "n_latents", "COUNT", "Features; by default the store's d."),
    Option("--lr", "lr", "X", "Learning rate.", "0.0003"),
    Option("--l1", "l1", "X", "Weight of the L1 term, of kinds that have one.", "0.04"),
    Option("--seed", "seed", "N", "Seed of the initial weights.", "0"),
    Option("--device", "device", "DEVICE", "auto, cpu, cuda or cuda:I.", "auto"),
    Option("--split", "split", "WHAT", "What processes share: data or features.", "data"),
]
_AS_GIVEN = ("out", "stretch", "allow_partial", "follow", "track", "track_project")
"""Options that mean to the stage what they mean here."""


@click.command(short_help="Train a sparse autoencoder on a store.")
@click.option("--store", metavar="FOLDER|URL", help="Its data.  [default: acts.zarr]")
@click.option(
    "--preset",
    metavar="NAME",
    help="paper, baseline, frontier, or a kind of SAE.  [default: paper]",
)
@settings_options(OPTIONS)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting; repeatable."
)
@click.option(
    "--sweep",
    "axes",
    multiple=True,
    metavar="KEY=V1,V2",
    help="A run for each value, all at once; repeatable: all combinations.",
)
@click.option("--recipe", metavar="FILE", help="Settings from TOML, or a run's config.json.")
@click.option(
    "--out", metavar="FOLDER", help="Run folder; by default runs/<preset>-<hash> or sweep-<hash>."
)
@click.option(
    "--init", "init", metavar="RUN", help="Begin with the weights of a finished or converted run."
)
@click.option("--resume/--fresh", default=True, help="Continue (default), or move aside and begin.")
@click.option(
    "--stretch",
    is_flag=True,
    help="Give a finished run in --out more --steps, though it will not be as one of that length.",
)
@click.option("--allow-partial", is_flag=True, help="Take a store that is not finished.")
@click.option(
    "--follow", is_flag=True, help="Take a store that is still being extracted: wait for its rows."
)
@click.option(
    "--track",
    multiple=True,
    metavar="TRACKER",
    help="Show the run in trackio, wandb or tensorboard; repeatable, or joined by commas.",
)
@click.option("--track-project", metavar="NAME", help="Project of the tracker.  [default: cpsae]")
@click.option(
    "--report/--no-report",
    default=True,
    help="Write report.html where the store's tokenizer is on this machine (default), or not.",
)
@click.option("--print-config", is_flag=True, help="Print every setting, where it is from; stop.")
@output_options
def command(
    store: str | None,
    preset: str | None,
    assignments: tuple[str, ...],
    axes: tuple[str, ...],
    recipe: str | None,
    init: str | None,
    resume: bool,
    report: bool,
    print_config: bool,
    **values: Any,
) -> None:
    """Train a sparse autoencoder on the rows of a store, by default the paper's.

    Interrupted at any moment, the same command continues from its last checkpoint, and ends with
    the weights that an uninterrupted run has. With more --steps, a finished run that --out names
    goes on, where it then ends like a run of that length.

    With --init RUN a new run begins with the weights of another one, with that one's settings where
    neither --preset nor --recipe gives others.
    """
    passed = {key: values.pop(key) for key in _AS_GIVEN}
    with terminal_of(values) as terminal:
        from cpsae.workers import Worker

        repeated = run_of(recipe, terminal.on_event)
        name, from_init = of_init(init, preset, recipe)
        init = init or repeated.get("init")  # its settings are in the recipe
        name = preset or repeated.get("preset") or name
        with usage_errors():
            leads = Worker.from_environment().is_leader
            layers = layers_of(given(OPTIONS, values), assignments, recipe, name, from_init)
            members = members_of(axes, layers)
            chosen = resolved(layers)
        if print_config:
            if leads:
                show_config(terminal, chosen, axes)
            return

        run: dict[str, Any] = {
            **passed,
            "init_run": init,
            "preset": name,
            "fresh": not resume,
            "store_identity": None if store else repeated.get("identity"),
            "on_event": terminal.on_event,
        }
        place = store or repeated.get("store", "acts.zarr")
        _end(terminal, _trained(place, members, chosen.settings, run), leads, report)


def _trained(
    place: str, members: "list[SweepMember]", settings: "FitSettings", run: dict[str, Any]
) -> "FitResult | SweepResult | Stopped":
    from cpsae.cli.interrupts import deferred
    from cpsae.cli.memory import keep_freed_blocks
    from cpsae.stages.fit import fit
    from cpsae.stages.sweep import sweep

    keep_freed_blocks()
    with deferred() as should_stop:
        run["should_stop"] = should_stop
        return sweep(place, members, **run) if members else fit(place, settings, **run)


def _end(
    terminal: "Terminal",
    result: "FitResult | SweepResult | Stopped",
    leads: bool,
    report: bool,
) -> None:
    """Of several processes the first speaks for all."""
    from cpsae.cli.fit_results import report_of, show
    from cpsae.cli.interrupts import interruption
    from cpsae.training.loop import Stopped

    if isinstance(result, Stopped):
        ended = interruption()
        raise ended if leads else click.exceptions.Exit(ended.exit_code)
    if not leads:
        return
    try:
        if report:
            report_of(terminal, result)
    finally:  # where that is interrupted, too: the run is finished
        show(terminal, result)
