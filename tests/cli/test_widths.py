"""Every command that prints a table, on terminals of 60 and 200 columns: nothing beyond the edge,
nothing cut off."""

import io
import re
import sys
from pathlib import Path

import pytest

from cpsae.cli.main import _run


class Screen(io.StringIO):
    """Text that claims to be on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory) -> Path:
    """A folder with a run and a sweep on the small store."""
    from cpsae.stages.fit import fit
    from cpsae.stages.sweep import sweep
    from cpsae.training.settings import FitSettings
    from cpsae.training.sweep import members, parse_axes

    place = tmp_path_factory.mktemp("widths")

    def settings(**values):
        common = {"kind": "batchtopk", "normalize": "unit", "batch_size": 32, "steps": 20}
        return FitSettings(device="cpu", **{**common, **values})

    fit(finished, settings(k=4), out=place / "a-run-with-a-name-that-is-rather-long")
    sweep(finished, members(parse_axes(["k=2,4"]), lambda v: settings(**v)), out=place / "s")
    return place


COMMANDS = [
    ["info", "RUN"],
    ["info", "STORE"],
    ["evaluate", "RUN"],
    ["evaluate", "s"],
    ["compare", "."],
    ["compare", ".", "--each", "--columns", "mse,initial_loss"],
    ["export", "RUN", "--to", "safetensors", "--out", "OUT"],
    ["fit", "--store", "STORE", "--out", "OUT", "--preset", "batchtopk", *["--set", "k=4"]],
    ["fit", "--store", "STORE", "--out", "OUT", "--preset", "batchtopk", "--sweep", "k=2,4"],
    ["convert", "EXPORTED", "--out", "OUT"],
    ["fit", "--print-config"],
    ["verify", "STORE"],
]


@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_on_a_terminal(line, columns, place, finished, tmp_path, monkeypatch) -> None:
    names = {
        "RUN": "a-run-with-a-name-that-is-rather-long",
        "STORE": str(finished),
        "OUT": str(tmp_path / "out"),
        "EXPORTED": str(tmp_path / "exported"),
    }
    monkeypatch.chdir(place)
    if "EXPORTED" in line:
        from cpsae.stages.export import export

        export(names["RUN"], "safetensors", names["EXPORTED"])
    arguments = [names.get(word, word) for word in line]
    if line[0] == "fit" and "--out" in line:
        same = "normalize=unit", "steps=20", "batch_size=32", "device=cpu"
        arguments += [word for pair in same for word in ("--set", pair)]
    screen = Screen()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "argv", ["cpsae", *arguments])
    monkeypatch.setattr(sys, "stdout", screen)
    assert _run() == 0
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", text) for text in screen.getvalue().splitlines()]
    assert shown and "…" not in "".join(shown)
    # a title or a sentence is one line for who copies it; a table keeps to the screen
    table = [text for text in shown if text.startswith(" ")]
    assert max(map(len, table), default=0) <= columns
