"""`cpsae completion`: what shells offer after a tab, as real ones ask for it."""

import os
import shutil
import subprocess
import sys

import click
import pytest

from cpsae.cli.completing import _NAMES, presets
from cpsae.cli.main import _COMMANDS, cli
from cpsae.config import ExtractSettings
from cpsae.config.extraction import POINTS
from cpsae.training.recipes import preset_names

ASK = {
    "bash": """
        source ./script
        COMP_WORDS=({words}); COMP_CWORD={last}
        _cpsae_completion cpsae 2> /dev/null; printf '%s\\n' "${{COMPREPLY[@]}}"
    """,
    # what zsh's completion system does with the answer, printed
    "zsh": """
        compdef() {{ }}
        compadd() {{ print -l -- "${{(@P)@[-1]}}" }}
        _describe() {{ print -l -- "${{(@P)3}}" }}
        _path_files() {{ print -l -- *(N/) }}
        source ./script
        words=({words}); CURRENT=$(({last} + 1)); _cpsae_completion
    """,
    "fish": "source ./script; complete -C '{line}'",
}


@pytest.fixture(params=ASK)
def offered(request, tmp_path, monkeypatch):
    """offered("cpsae fit --pre") is what the shell offers for the last word."""
    shell, ask = request.param, ASK[request.param]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    command = binaries / "cpsae"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cpsae "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    place = tmp_path / "place"
    (place / "acts.zarr").mkdir(parents=True)
    script = subprocess.run(["cpsae", "completion", shell], capture_output=True, text=True)
    assert script.returncode == 0 and script.stderr == ""
    (place / "script").write_text(script.stdout)

    def complete(line: str) -> set[str]:
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        text = ask.format(words=quoted, last=len(words) - 1, line=line)
        arguments = {"bash": ["--norc", "-c"], "zsh": ["-fc"], "fish": ["--no-config", "-c"]}
        done = subprocess.run(
            [shell, *arguments[shell], text], capture_output=True, text=True, cwd=place
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        found = done.stdout.replace(":", "\t", 0).splitlines()
        return {answer.split("\t")[0].partition(":")[0].rstrip("/") for answer in found if answer}

    complete.shell = shell  # type: ignore[attr-defined]
    return complete


def test_what_shells_offer(offered) -> None:
    assert offered("cpsae ev") == {"evaluate"}
    assert offered("cpsae fit --preset b") == {"baseline", "batchtopk"}
    assert {"--track", "--track-project"} == offered("cpsae fit --track")
    assert offered("cpsae export run --to s") == {"sae-lens", "sparsify", "saebench", "safetensors"}
    assert offered("cpsae completion ") == {"bash", "zsh", "fish"}
    if offered.shell != "bash":  # whose own completion of folders starts at a tab alone
        assert offered("cpsae info ") == {"acts.zarr"}


def answers(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setenv("_CPSAE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setattr(sys, "argv", ["cpsae"])
    with pytest.raises(SystemExit):
        cli.main(prog_name="cpsae", standalone_mode=False)
    return capsys.readouterr().out


def test_lists_and_paths(monkeypatch, capsys) -> None:
    assert answers(monkeypatch, capsys, "cpsae", "fit", "--track", "wandb,t").split() == [
        "plain,wandb,trackio",
        "plain,wandb,tensorboard",
    ]
    assert answers(monkeypatch, capsys, "cpsae", "fit", "--store", "a").split() == ["dir,a"]
    assert answers(monkeypatch, capsys, "cpsae", "extract", "--model", "m").split() == ["file,m"]


def test_names_are_those_that_are_taken() -> None:
    assert presets() == preset_names()
    assert set(_NAMES["--hook"]()) == set(POINTS)
    for flag in ("--dtype", "--store-dtype", "--attention"):
        for name in _NAMES[flag]():
            ExtractSettings.model_validate({flag[2:].replace("-", "_"): name})


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_path_is_completed(name) -> None:
    """Of all commands: what names a folder or a file offers some."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for param in command.params:
        metavar = param.metavar or ""
        if any(word in metavar for word in ("FOLDER", "DIR", "FILE", "PATH", "RUN", "STORE")):
            if "ORG/" in metavar:  # a place on the hub
                continue
            [item] = param.type.shell_complete(click.Context(command), param, "x")
            assert item.type in ("dir", "file"), (name, param.name)


def test_a_tab_imports_nothing_heavy(tmp_path) -> None:
    code = (
        "import sys\n"
        "from cpsae.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pydantic', 'zarr', 'numpy', 'transformers', 'rich', 'matplotlib'}\n"
        "print('LOADED', *heavy & set(sys.modules))\n"
    )
    words = {"COMP_WORDS": "cpsae fit --preset t", "COMP_CWORD": "3"}
    environment = {**os.environ, **words, "_CPSAE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["plain,topk", "LOADED"], done.stderr


def test_another_shell(command) -> None:
    done = command("completion", "csh")
    assert done.code == 2 and "'csh' is not one of 'bash', 'zsh', 'fish'" in done.err
