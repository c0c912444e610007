"""Options that commands share, and how they become settings.

Options reach the settings as text, so that numbers, bounds and their errors live in cpsae.config
alone; the defaults that help texts show are checked against it by a test.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from cpsae.cli.terminal import Terminal
    from cpsae.config import Resolved, Settings

F = TypeVar("F", bound=Callable[..., Any])


class Option(NamedTuple):
    """`--flag`, the settings key that it sets, what stands for its value, and its help."""

    flag: str
    key: str
    metavar: str
    help: str
    default: str = ""


def settings_options(options: Sequence[Option]) -> Callable[[F], F]:
    """Add an option of type text for each; those not given come as None."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            text = f"{option.help}  [default: {option.default}]" if option.default else option.help
            function = click.option(
                option.flag, _parameter(option), metavar=option.metavar, help=text
            )(function)
        return function

    return decorate


def given(options: Sequence[Option], values: dict[str, Any]) -> dict[str, Any]:
    """Take the options' values out of a command's arguments: key to text, of those given."""
    texts = {option.key: values.pop(_parameter(option)) for option in options}
    return {key: text for key, text in texts.items() if text is not None}


def output_options(function: F) -> F:
    """--json, -q, -v."""
    function = click.option("-v", "--verbose", is_flag=True, help="Show details too.")(function)
    function = click.option(
        "-q", "--quiet", is_flag=True, help="Show errors and the result alone."
    )(function)
    return click.option(
        "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
    )(function)


@contextmanager
def terminal_of(values: dict[str, Any]) -> Iterator["Terminal"]:
    """The terminal that the output options ask for; they are taken out of `values`."""
    from cpsae.cli.terminal import Terminal

    terminal = Terminal(values.pop("as_json"), values.pop("quiet"), values.pop("verbose"))
    try:
        yield terminal
    finally:
        terminal.close()


@contextmanager
def usage_errors() -> Iterator[None]:
    """Settings that the command line alone shows to be wrong end the command with exit code 2;
    those in a recipe with 1."""
    from cpsae.errors import SettingsError

    try:
        yield
    except SettingsError as error:
        if error.from_file:
            raise
        raise click.UsageError(str(error)) from None


def resolve_settings(
    settings_class: "type[Settings]", options: dict[str, Any], recipe: str | None = None
) -> "Resolved[Any]":
    """Combine what the command line gave."""
    from cpsae.config.resolve import RECIPE, read_recipe, resolve

    with usage_errors():
        layers = {"option": options}
        if recipe is not None:
            layers[f"{RECIPE} {recipe}"] = read_recipe(Path(recipe))
        return resolve(settings_class, layers)


def _parameter(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_")
