"""Every code block of README and docs runs, on stand-ins; the few that cannot say why, and have at
least to parse."""

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from doc_blocks import PAGES, PROGRAMS, ROOT, Block, blocks_of, commands_of, cpsae_arguments

from cpsae.cli.main import cli

ELSEWHERE = {
    "docs/store-format.md": "tests/store/test_store_format_page.py",
    "docs/export-format.md": "tests/interop/test_interop_plain.py",
    "docs/new-kind.md": "tests/docs/test_docs_new_kind.py",
}
"""Pages whose Python needs what no folder holds, and the tests that run it."""
LONG = {"demo", "bench"}
"""Commands that take minutes and have tests of their own: here they are parsed."""
NEEDS_AN_ACCOUNT = {"--push"}
"""Options that reach a service: parsed here, and tested beside their command."""

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL = [block for block in BLOCKS if block.language == "shell"]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PYTHON_PAGES = sorted({block.page for block in PYTHON})


def named(block: Block) -> str:
    return block.where


def test_there_are_blocks_of_each_sort() -> None:
    assert len(SHELL) > 20 and len(PYTHON) > 10
    assert all(block.content.strip() for block in BLOCKS)


def parse(arguments: list[str]) -> None:
    """Let click parse a command line, without running it. Raises click.ClickException."""
    if arguments and not arguments[0].startswith("-"):
        command = cli.get_command(click.Context(cli), arguments[0])
        assert command is not None, f"there is no command {arguments[0]}"
        group = click.Context(cli, info_name="cpsae")
        while isinstance(command, click.Group) and arguments[1:]:
            inner = command.get_command(group, arguments[1])
            if inner is None:
                break
            command, arguments = inner, arguments[1:]
        command.make_context(arguments[0], list(arguments[1:]), parent=group)


@pytest.mark.parametrize("block", SHELL, ids=named)
def test_every_command_line_parses(block: Block) -> None:
    for command in commands_of(block.content):
        arguments = cpsae_arguments(command)
        if arguments is not None:
            try:
                parse(arguments)
            except click.exceptions.Exit:  # --help and --version
                continue
            except click.ClickException as error:
                pytest.fail(f"{block.where}: {' '.join(command)}: {error.format_message()}")
            continue
        program = command[0].split("/")[-1]
        if command[0].startswith("pipelines/"):
            assert (ROOT / command[0]).is_file(), block.where
        else:
            assert program in PROGRAMS | {"ruff", "mypy", "pytest"}, f"{block.where}: {command[0]}"
        check_script(block, command)
        for extra in re.findall(r"cpsae\[([\w,-]+)\]", " ".join(command)):
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert set(extra.split(",")) <= extras["optional-dependencies"].keys(), block.where


def check_script(block: Block, command: list[str]) -> None:
    """A script of ours is there, and knows the options that it is given."""
    scripts = [word for word in command if word.endswith(".py") and "pipelines/" in word]
    for script in scripts:
        file = ROOT / script.removeprefix("../../")
        assert file.is_file(), f"{block.where}: {script} is not there"
        text = file.read_text(encoding="utf-8")
        for option in (word.partition("=")[0] for word in command if word.startswith("--")):
            assert f'"{option}"' in text, f"{block.where}: {script} has no option {option}"


def to_run(block: Block) -> list[list[str]]:
    """The command lines of a block that can be run here, without `cpsae`."""
    if block.not_run or block.page.name == "new-kind.md" or "pipelines" in block.where:
        return []  # run elsewhere; of a size and a model that no test has
    found = (cpsae_arguments(command) for command in commands_of(block.content))
    return [a for a in found if a and a[0] not in LONG and not NEEDS_AN_ACCOUNT & set(a)]


@pytest.mark.parametrize("block", list(filter(to_run, SHELL)), ids=named)
def test_every_command_runs(
    block: Block, world: Path, run_command: Callable[[list[str]], str]
) -> None:
    commands = to_run(block)
    if any(arguments[0] == "extract" for arguments in commands):
        shutil.rmtree(world / "acts.zarr")  # which the block makes
    for arguments in commands:
        run_command(arguments)


@pytest.mark.parametrize("block", PYTHON, ids=named)
def test_all_python_compiles(block: Block) -> None:
    compile(block.content, block.where, "exec")


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_s_python_runs(page: Path, request: pytest.FixtureRequest) -> None:
    """Block after block, as one program: the later ones use what the earlier ones made."""
    name = str(page.relative_to(ROOT))
    if name in ELSEWHERE:
        assert page.name in (ROOT / ELSEWHERE[name]).read_text(encoding="utf-8")
        return
    world: Path = request.getfixturevalue("world")
    names: dict[str, object] = {"__name__": "page"}
    blocks = [block for block in blocks_of(page) if block.language == "python"]
    if any("cpsae.extract(" in block.content for block in blocks if not block.not_run):
        shutil.rmtree(world / "acts.zarr")
    for block in blocks:
        if block.not_run is None:
            exec(compile("\n" * block.line + block.content, block.where, "exec"), names)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=named)
def test_every_toml_is_well_formed(block: Block) -> None:
    tomllib.loads(block.content)
