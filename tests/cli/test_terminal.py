"""What a command shows: a live bar on a terminal, plain lines elsewhere, notes by their kind."""

import errno
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from cpsae.cli import interrupts, terminal
from cpsae.cli.terminal import Terminal
from cpsae.errors import DiskError
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


def on_a_terminal(code: str, columns: int = 120) -> str:
    """What a program writes where standard error is a terminal."""
    main, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
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
    [(True, "yes"), (False, "no"), (1234, "1,234"), (0.12345678, "0.1235"), (None, "-")],
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


FIT = """
from cpsae.cli.terminal import Terminal
from cpsae.events import Advanced, Finished, Started
terminal = Terminal()
terminal.on_event(Started({work!r}, {total}, {unit!r}))
for done in range(1, 4):
    terminal.on_event(Advanced({total} * done // 3, {{"loss": 0.12345678, "l0": 474.25, "n": 576}}))
terminal.on_event(Finished())
"""


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize(
    ("work", "total", "unit"), [("fit", 4882, "step"), ("extract", 10_000_000, "vector")]
)
def test_a_live_bar_keeps_to_one_line(columns, work, total, unit) -> None:
    shown = on_a_terminal(FIT.format(work=work, total=total, unit=unit), columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert max(map(len, lines)) <= columns
    assert f"{total}/{total}" in lines[-1]
    assert all(line.lstrip().startswith(work) for line in lines), "the bar broke into two lines"
    assert ("loss" in lines[-1]) == (columns >= 112)


def test_a_grid_has_a_row_a_thing(capsys) -> None:
    Terminal().grid("[title]", ["run", "l0"], [["k=8", 8.25], ["k=16", 1600]])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["[title]"], ["run", "l0"], ["k=8", "8.25"], ["k=16", "1,600"]]


class Gone:
    """A stream whose place is gone."""

    encoding = "utf-8"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, _text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "no descriptor")


@pytest.mark.parametrize(
    "stream",
    [
        Gone(OSError(errno.EPIPE, "gone")),
        Gone(OSError(errno.EIO, "gone")),
        Gone(OSError(errno.ENOSPC, "full")),
        Gone(ValueError("I/O operation on closed file")),
        None,
    ],
)
def test_the_work_goes_on_where_nothing_can_be_shown(monkeypatch, stream) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    shown = Terminal(verbose=True)
    for event in (Started("fit", 2, "step"), Note("a", "warning"), Advanced(2), Finished()):
        shown.on_event(event)
    shown.table("t", [("a", 1)])
    shown.grid("t", ["a"], [[1]])
    shown.line(("a", "marked"))
    shown.close()
    if stream is not None:
        with pytest.raises(DiskError, match="standard output: the result cannot be written"):
            Terminal(as_json=True).result({"a": 1})


LONG = """
import sys
from cpsae.cli import terminal
terminal._PLAIN_SECONDS = 0
import click
from cpsae.cli import main, options

@click.command()
@options.output_options
def command(**values):
    with options.terminal_of(values) as shown:
        from cpsae.events import Advanced, Finished, Note, Started
        shown.on_event(Started("fit", 5000, "step"))
        for done in range(1, 5001):
            shown.on_event(Advanced(done))
        shown.on_event(Finished())
        if not shown.result({"done": True}):
            shown.table("result", [("x", "y" * 100_000)])
        open(sys.argv[0], "w").write("files are written")

main.cli = command
sys.argv = sys.argv[1:]
main.main()
"""


@pytest.mark.parametrize("place", ["pipe", "full"])
@pytest.mark.parametrize(("options", "code"), [([], 0), (["--json"], 1)])
def test_a_place_that_goes_away_ends_nothing(tmp_path, place, options, code) -> None:
    place_of_output = {"pipe": "", "full": "> /dev/full"}[place]
    line = f'{{ "$@" {place_of_output} 2>&1; echo $? > {tmp_path}/code; }}'
    line += " | head -c 10 > /dev/null" if place == "pipe" else ""
    script, files = tmp_path / "long.py", tmp_path / "files"
    script.write_text(LONG)
    command = ["bash", "-c", line, "bash", sys.executable, str(script), str(files), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    found = int((tmp_path / "code").read_text())
    if options and place == "pipe":  # a pipe may still hold so small an object
        assert found in (0, 1)
    else:
        assert found == code
    assert code or files.read_text() == "files are written"


class Clock:
    """Moves by what it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("cpsae.cli.terminal.time.monotonic", lambda: self.now)


@pytest.mark.parametrize(
    ("reports", "rate"),
    [
        ([(10.0, 100)], 10),  # the first piece counts with its own time
        ([(10.0, 100), (0.0, 200)], 20),  # the last came at once: not 100 in no time
        ([(5.0, 100), (5.0, 200), (10.0, 200)], 10),
        ([(0.0, 100)], None),  # no time of its own: no rate
    ],
)
@pytest.mark.parametrize("kind", [terminal._LiveBar, terminal.PlainBar])
def test_a_rate_counts_from_where_the_work_began(monkeypatch, kind, reports, rate) -> None:
    clock = Clock(monkeypatch)
    shown = Terminal()
    bar = kind(shown.err if kind is terminal._LiveBar else shown, Started("fit", 200, "row", 0))
    for seconds, done in reports:
        clock.now += seconds
        bar.advance(Advanced(done))
    bar.finish()
    assert bar.rate == rate


def test_a_plain_line_without_a_rate(monkeypatch, capsys) -> None:
    Clock(monkeypatch)
    shown = Terminal()
    shown.on_event(Started("tokenise", 200, "token"))
    shown.on_event(Advanced(200))
    assert capsys.readouterr().err == "tokenise: 200 of 200 tokens (100%)\n"


TABLES = """
from cpsae.cli.terminal import Terminal
Terminal().grid("title", ["run", "kind"] + [f"figure_{i}_with_a_name" for i in range(9)],
    [[f"runs/a/rather/long/path/to/run-{i}", "batchtopk"] + [i + j / 7 for j in range(9)]
     for i in range(3)], names=2)
Terminal().table("title", [("saebench/a_metric_with_a_long_name", 0.5, "[0.4567, 0.5678]"),
    ("path", "/a/path/that/has/no/place/to/break/it/at/and/is/longer/than/sixty/columns"),
    ("nothing", None)])
"""


def whole_words(columns: int) -> tuple[list[str], str]:
    """The lines of both tables, and all that they say without blanks and line ends."""
    code = TABLES.replace("Terminal()", "Terminal(quiet=True)")
    code = f"import os, sys; sys.stdout = sys.stderr\n{code}"
    lines = [re.sub(r"\x1b\[[0-9;?]*m", "", x) for x in on_a_terminal(code, columns).splitlines()]
    return lines, "".join("".join(lines).split())


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_tables_keep_to_the_width_and_lose_nothing(columns) -> None:
    lines, said = whole_words(columns)
    assert max(map(len, lines)) <= columns
    assert "…" not in said
    for figure in range(9):
        assert said.count(f"figure_{figure}_with_a_name") == 1
        for row in range(3):
            assert f"{row + figure / 7:.4g}" in said
    assert "saebench/a_metric_with_a_long_name" in said and "[0.4567,0.5678]" in said
    for piece in ("/a/path/that", "sixty/columns"):
        assert piece in said
    assert columns < 60 or any("[0.4567, 0.5678]" in line for line in lines)


def test_a_pipe_gets_each_row_on_one_line() -> None:
    for more in ({}, {"FORCE_COLOR": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", TABLES],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "60", **more},
        )
        assert len(done.stdout.splitlines()) == 9, done.stderr
        assert ("\x1b[" in done.stdout) == bool(more)


@pytest.mark.parametrize(
    ("more", "colours", "live"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colours_and_bars_as_the_environment_says(monkeypatch, more, colours, live) -> None:
    code = (
        f"import os; os.environ.update({more})\n"
        "from cpsae.cli import terminal as t; t._PLAIN_SECONDS = 0\n"
    ) + WORK.format(quiet=False)
    code += "\nterminal.note('careful', 'warning')"
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    shown = on_a_terminal(code)
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)) == colours
    assert ("\x1b[?25l" in shown) == live  # the cursor is hidden while a bar is drawn
    assert ("extract: 200 of 200 vectors" in shown) != live


def test_force_color_draws_no_bar_into_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK.format(quiet=False)],
        capture_output=True,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1"},
    )
    assert "extract: 200 of 200 vectors" in done.stderr and "\x1b[?25l" not in done.stderr
