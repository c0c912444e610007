"""Running commands in this process, and a finished store to run them on."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny import LAYER, TOKENS

from cpsae.cli.main import _run
from cpsae.config import ExtractSettings


class Outcome(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """command(*arguments) runs `cpsae` with them, all but the handling of signals."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["cpsae", *map(str, arguments)])
        capsys.readouterr()
        code = _run()
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def finished(gemma: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store; do not change it."""
    from cpsae.stages.extract import extract

    values = {"model": str(gemma), "layer": LAYER, "tokens": TOKENS, "dataset": str(corpus)}
    store = tmp_path_factory.mktemp("finished") / "acts.zarr"
    chosen = ExtractSettings.model_validate(
        {**values, "vectors": 3000, "store": str(store), "device": "cpu"}
    )
    return Path(extract(chosen).path)


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "acts.zarr"))
