"""The command `cpsae`: finds the subcommand, and turns what ends it into a line and an exit code.

Subcommands are imported when they are called for, so that help answers at once.
"""

import sys
from importlib import import_module
from typing import NoReturn

import click

from cpsae import __version__
from cpsae.cli.completing import with_completion
from cpsae.cli.interrupts import Interrupted, catch_signals
from cpsae.cli.streams import escape_what_cannot_be_encoded, standard_error, standard_output
from cpsae.errors import CpsaeError

_COMMANDS = {
    "extract": ("extract", "Write a language model's activations to a store."),
    "fit": ("fit", "Train a sparse autoencoder on a store."),
    "evaluate": ("evaluate", "Measure runs on a store's held-out rows."),
    "compare": ("compare", "Put runs beside each other, in a table and a picture."),
    "report": ("report", "Show runs and their features on one HTML page."),
    "export": ("export", "Write a run in another program's format."),
    "import": ("import_", "Make a store of activations from elsewhere."),
    "convert": ("convert", "Make a run of what another program trained."),
    "info": ("info", "Say what is in a store or a run."),
    "verify": ("verify", "Check every chunk of a store."),
    "bench": ("bench", "Time the stages against what they cannot do without."),
    "demo": ("demo", "See both stages work on this machine, in three minutes."),
    "completion": ("completion", "Print the script for tab completion in a shell."),
}


class _LazyGroup(click.Group):
    """Knows names and one-line helps; imports a command's module when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"cpsae.cli.{_COMMANDS[cmd_name][0]}").command
        return with_completion(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], _COMMANDS, n=1)
            advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(_COMMANDS)}"
            raise click.UsageError(f"no command is called '{args[0]}': {advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _param, asked: _show_version(ctx) if asked else None,
    help="Show the version, and those of what it stands on.",
)
def cli() -> None:
    """Train sparse autoencoders on the activations of language models, in two stages.

    \b
    cpsae extract --layer 19 --tokens 128   # writes a store
    cpsae fit --store acts.zarr   # makes an autoencoder of it

    Both can be interrupted at any moment: run the same command again to continue.
    """


def _show_version(ctx: click.Context) -> None:
    """What a report of a fault should say."""
    from platform import machine, system

    from cpsae.software import software_versions

    click.echo(f"cpsae, version {__version__}")
    others = {name: text for name, text in software_versions().items() if name != "cpsae"}
    click.echo(", ".join(f"{name} {text}" for name, text in others.items()))
    click.echo(f"{system()} {machine()}")
    ctx.exit()


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 error, 2 wrong command line, 128 + signal."""
    escape_what_cannot_be_encoded()
    try:
        with catch_signals():
            code = _run()
    except Interrupted as interrupted:  # a second signal, while the first was being answered
        code = interrupted.exit_code
    standard_output().flush()  # what cannot be written any more is lost here, without a word
    standard_error().flush()
    sys.exit(code)


def _run() -> int:
    try:
        # click hands back the code of `ctx.exit(1)` here, and what a command returns: None
        return cli.main(prog_name="cpsae", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        standard_output().write(f"{error.format_message()}\n")
        return 0
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except CpsaeError as error:
        return _fail(str(error), 1)
    except Interrupted as interrupted:
        standard_error().write(f"{interrupted}\n")
        return interrupted.exit_code
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.filename is None:  # nothing that the user named: a defect, with its traceback
            raise
        return _fail(f"{error.filename}: cannot be used ({error.strerror}); check the path", 1)


def _fail(message: str, code: int) -> int:
    standard_error().write("error: " + " ".join(message.split()) + "\n")
    return code
