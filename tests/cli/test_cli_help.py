"""Help: quick, complete, and true to the settings' defaults."""

import subprocess
import sys

import pytest

from cpsae.cli.extract import OPTIONS as EXTRACT_OPTIONS
from cpsae.cli.fit import OPTIONS as FIT_OPTIONS
from cpsae.cli.main import _COMMANDS, cli
from cpsae.config import ExtractSettings, parse_count
from cpsae.config.resolve import defaults
from cpsae.training.settings import FitSettings

HEAVY = ("torch", "pydantic", "zarr", "numpy", "transformers", "rich", "matplotlib")


@pytest.mark.parametrize("name", ["", *_COMMANDS])
def test_help_imports_nothing_heavy(name) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['cpsae', *{name!r}.split(), '--help']\n"
        "from cpsae.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('LOADED', *[m for m in {HEAVY} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: cpsae")
    assert done.stdout.strip().splitlines()[-1] == "LOADED"


@pytest.mark.parametrize(
    ("settings_class", "options"),
    [(ExtractSettings, EXTRACT_OPTIONS), (FitSettings, FIT_OPTIONS)],
    ids=["extract", "fit"],
)
def test_defaults_in_help_are_the_settings(settings_class, options) -> None:
    known = defaults(settings_class)
    for option in options:
        default = known[option.key]
        if option.default == "":
            assert default is None, option.flag
        elif isinstance(default, int | float):
            assert (
                float(parse_count(option.default)) == default
                if "M" in option.default
                else (float(option.default) == default)
            ), option.flag
        else:
            assert option.default == default, option.flag


def test_every_extract_setting_has_an_option() -> None:
    flags = {"keep_bos", "special_tokens", "trust_remote_code"}
    assert {option.key for option in EXTRACT_OPTIONS} | flags == set(defaults(ExtractSettings))


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_list_of_commands_says_what_each_says_itself(name) -> None:
    from click import Context

    found = cli.get_command(Context(cli), name)
    assert found is not None and found.short_help == _COMMANDS[name][1]


def test_no_arguments_show_the_help(command) -> None:
    done = command()
    assert (done.code, done.err) == (0, "")
    assert "cpsae extract --layer 19 --tokens 128" in done.out


@pytest.mark.parametrize("name", ["", *_COMMANDS])
def test_help_fits_a_narrow_terminal(name) -> None:
    from click.testing import CliRunner

    done = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=60)
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 60


def test_a_command_that_there_is_not(command) -> None:
    done = command("fti")
    assert (done.code, done.err) == (2, "error: no command is called 'fti': did you mean fit?\n")
    assert "there are extract, fit, " in command("zzz").err


def test_version(command) -> None:
    from importlib.metadata import version
    from platform import python_version

    import cpsae

    done = command("--version")
    first, second, _ = done.out.splitlines()
    assert done.code == 0 and first == f"cpsae, version {cpsae.__version__}"
    assert f"python {python_version()}" in second and f"torch {version('torch')}" in second


def test_the_module_runs_like_the_command(cpsae) -> None:
    done = cpsae("extract", "--tokens", "0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: tokens = 0 (from option)")
    assert done.stdout == ""
