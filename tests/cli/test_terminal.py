"""What a command shows: a live bar on a terminal, plain lines elsewhere, notes by their kind."""

import json
import os
import pty
import subprocess
import sys

import pytest

from cpsae.cli import interrupts, terminal
from cpsae.cli.terminal import Terminal
from cpsae.events import Advanced, Finished, Note, Started

WORK = """
from cpsae.cli.terminal import Terminal
from cpsae.events import Advanced, Finished, Note, Started
terminal = Terminal(quiet={quiet})
terminal.on_event(Started("extract", 200, "vector", 50))
terminal.on_event(Advanced(100, {{"loss": 0.5}}))
terminal.on_event(Note("a fact"))
terminal.on_event(Advanced(200))
terminal.on_event(Finished())
"""


def on_a_terminal(code: str) -> str:
    """What a program writes where standard error is a terminal."""
    main, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=end, env=environment) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                piece = os.read(main, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(main)
    assert process.returncode == 0, shown
    return shown.decode()


def test_a_live_bar_on_a_terminal() -> None:
    shown = on_a_terminal(WORK.format(quiet=False))
    assert "\x1b[" in shown and "200/200" in shown and "a fact" in shown


def test_no_bar_where_quiet_is_asked_for() -> None:
    assert on_a_terminal(WORK.format(quiet=True)) == ""


def test_plain_lines_elsewhere(capsys, monkeypatch) -> None:
    monkeypatch.setattr(terminal, "_PLAIN_SECONDS", 0)
    shown = Terminal()
    shown.on_event(Started("extract", 200, "vector", 50))
    shown.on_event(Advanced(100, {"loss": 0.5}))
    shown.on_event(Finished())
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.strip()
    assert line.startswith("extract: 100 of 200 vectors (50%), ")
    assert line.endswith(" left, loss 0.5") and "\n" not in line


def test_lines_come_only_so_often(capsys) -> None:
    shown = Terminal()
    shown.on_event(Started("extract", 200, "vector"))
    for done in range(1, 201):
        shown.on_event(Advanced(done))
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["fact", "warning: care"]),
        ({"quiet": True}, ["warning: care"]),
        ({"verbose": True}, ["fact", "detail", "warning: care"]),
    ],
)
def test_notes_by_kind(capsys, options, shown) -> None:
    listener = Terminal(**options)
    for note in (Note("fact"), Note("detail", "detail"), Note("care", "warning")):
        listener.on_event(note)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == shown and captured.out == ""


def test_a_second_piece_of_work_closes_the_first(capsys) -> None:
    shown = Terminal()
    shown.on_event(Started("one", 2, "row"))
    shown.on_event(Started("two", 2, "row"))
    shown.on_event(Advanced(2))
    assert capsys.readouterr().err.startswith("two: 2 of 2")


def test_json_has_null_for_what_is_no_number(capsys) -> None:
    content = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": float("-inf")}}
    assert Terminal(as_json=True).result(content)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_tables_do_not_break_lines_or_read_markup(capsys) -> None:
    Terminal().table("[bold]path", [("name", "x" * 300), ("flag", True), ("count", 1234567)])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "[bold]path"
    assert lines[1].endswith("x" * 300)
    assert lines[2].split() == ["flag", "yes"] and lines[3].split() == ["count", "1,234,567"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "no"), (1234, "1,234"), (0.12345678, "0.1235"), (None, "None")],
)
def test_values_as_people_read_them(value, text) -> None:
    assert terminal.shown(value) == text


def test_only_kept_work_counts_as_reached() -> None:
    shown = Terminal(quiet=True)
    shown.on_event(Started("extract", 4, "vector", 1))
    shown.on_event(Advanced(2))
    shown.on_event(Started("verify", 4, "chunk", kept=False))
    shown.on_event(Advanced(4))
    assert str(interrupts.Interrupted(2)).startswith("stopped at 50%; ")
