"""All that a command shows: progress, notes, tables. Nothing else in cpsae knows of rich.

Results go to standard output; progress and notes go to standard error, as a live bar on a terminal
and as plain lines elsewhere.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text

from cpsae.cli.interrupts import note_progress, raise_if_lost
from cpsae.cli.streams import standard_error, standard_output
from cpsae.cli.tables import grids, pairs
from cpsae.errors import DiskError
from cpsae.events import Advanced, Event, Finished, Note, Started

_PLAIN_SECONDS = 10.0
"""Time between two plain progress lines."""
_UNBROKEN = 10_000
"""Columns of what is no terminal: a program that reads a table wants each row on one line."""
_STYLES = {
    "plain": "",
    "title": "bold cyan",
    "heading": "italic",
    "label": "bold yellow",
    "aside": "dim",
    "marked": "bold black on yellow",
    "name": "cyan",
    "warning": "yellow",
}
"""Every colour that cpsae shows, by what it means."""


class Terminal:
    """One command's output. `quiet` leaves errors and results; `verbose` adds details."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        # no markup, no emoji: paths may hold brackets and colons
        plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
        self.out = Console(file=standard_output(), soft_wrap=True, **plain)
        if not self.out.file.isatty():  # FORCE_COLOR asks for colours there, not for breaks
            self.out.width = _UNBROKEN
        self.err = Console(file=standard_error(), **plain)
        self._bar: _Bar | None = None

    def on_event(self, event: Event) -> None:
        """Show what a stage reports."""
        raise_if_lost()
        if isinstance(event, Note):
            self.note(event.text, event.kind)
        elif isinstance(event, Started):
            self._end_bar()
            live = self.err.is_interactive and self.err.file.isatty() and not self.quiet
            self._bar = _LiveBar(self.err, event) if live else PlainBar(self, event)
        elif self._bar is not None and isinstance(event, Advanced):
            self._bar.advance(event)
        elif self._bar is not None and isinstance(event, Finished):
            self._bar.finish()
            self._bar = None

    def note(self, text: str, kind: str = "fact") -> None:
        """A line on standard error."""
        if kind == "warning":
            self._say(f"warning: {text}", "warning")
        elif not self.quiet and (kind != "detail" or self.verbose):
            self._say(text, "aside" if kind == "detail" else "plain")

    def _say(self, text: str, style: str) -> None:
        self.err.print(Text(text, style=_STYLES[style]), soft_wrap=True)

    def result(self, content: Mapping[str, Any]) -> bool:
        """With --json print the command's one object and give True; else give False.

        Raises DiskError where it cannot be written: who asked for it has nothing else.
        """
        if self.as_json:
            try:
                print(json.dumps(_finite(content), indent=2, default=str), flush=True)
            except (OSError, ValueError) as error:
                self.out.file.flush()  # loses what is still buffered, or Python would complain
                raise DiskError(
                    f"standard output: the result cannot be written ({error}); all files are, so "
                    "the same command again shows it"
                ) from None
        return self.as_json

    @property
    def width(self) -> int:
        """Columns of standard output."""
        return self.out.width

    def print(self, text: str = "") -> None:
        """A line on standard output."""
        self.out.print(Text(text))

    def line(self, *spans: tuple[str, str]) -> None:
        """A line on standard output of pieces with their meaning: a key of the styles above."""
        self.out.print(Text.assemble(*((text, _STYLES[style]) for text, style in spans)))

    def table(self, title: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Names, each with its values, on standard output."""
        texts = [(name, *map(shown, values)) for name, *values in rows]
        self.out.print(Text(title, style=_STYLES["heading"]))
        self.out.print(pairs(texts, self.width, _STYLES["name"]), soft_wrap=False)

    def grid(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], names: int = 1
    ) -> None:
        """Several things with the same figures on standard output, one a row; the first columns,
        as many as `names`, are no figures."""
        texts = [[shown(value) for value in row] for row in rows]
        width = self.out.width
        self.out.print(Text(title, style=_STYLES["heading"]))
        for table in grids(columns, texts, names, width, _STYLES["name"]):
            self.out.print(table, soft_wrap=False)

    def close(self) -> None:
        """Leave no live bar behind, whatever ended the command, and nothing unwritten."""
        self._end_bar()
        self.out.file.flush()
        self.err.file.flush()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.finish()
            self._bar = None


def _finite(content: Any) -> Any:
    """JSON knows no NaN and no infinity: null stands for them."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


class _Bar:
    """Progress of one piece of work."""

    def __init__(self, event: Started) -> None:
        self.event = event
        self.done, self._began, self._seconds = event.done, time.monotonic(), 0.0
        self._note_progress(event.done)

    def advance(self, event: Advanced) -> None:
        self.done, self._seconds = event.done, time.monotonic() - self._began
        self._note_progress(event.done)

    @property
    def rate(self) -> float | None:
        """Units a second from the beginning to the last report; None before there is one."""
        return (self.done - self.event.done) / self._seconds if self._seconds > 0 else None

    def _note_progress(self, done: int) -> None:
        if self.event.kept:
            note_progress(done / self.event.total if self.event.total else 1.0)

    def finish(self) -> None:
        """The work ended."""


class _LiveBar(_Bar):
    def __init__(self, console: Console, event: Started) -> None:
        super().__init__(event)
        self._progress = Progress(
            TextColumn("{task.description}"),
            _From(_BAR_FROM, console, _FittingBar(console)),
            MofNCompleteColumn(),
            _From(_RATE_FROM, console, _Rate(self)),
            TimeRemainingColumn(),
            _From(_FIGURES_FROM, console, TextColumn("{task.fields[values]}", style="dim")),
            console=console,
        )
        self._task = self._progress.add_task(
            event.work, total=event.total, completed=event.done, values=""
        )
        self._progress.start()

    def advance(self, event: Advanced) -> None:
        super().advance(event)
        self._progress.update(self._task, completed=event.done, values=_values(event))

    def finish(self) -> None:
        self._progress.stop()


_RATE_FROM, _BAR_FROM, _FIGURES_FROM = 66, 80, 112
"""Columns of a terminal from which there is room, on one line, for what can be done without."""


class _From(ProgressColumn):
    """Another column, where the terminal is at least so wide."""

    def __init__(self, width: int, console: Console, column: ProgressColumn) -> None:
        super().__init__()
        self._width, self._console, self._column = width, console, column

    def render(self, task: Task) -> RenderableType:
        return self._column.render(task) if self._console.width >= self._width else Text("")


class _FittingBar(BarColumn):
    """As long as the rest of the line leaves room for."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> ProgressBar:
        figures = 34 if self._console.width >= _FIGURES_FROM else 0
        self.bar_width = max(10, min(40, self._console.width - 70 - figures))
        return super().render(task)


class _Rate(ProgressColumn):
    """Units a second since the work began here; rich's own leaves out the first report's time."""

    def __init__(self, bar: _Bar) -> None:
        super().__init__()
        self.bar = bar

    def render(self, task: Task) -> Text:  # noqa: ARG002
        rate = self.bar.rate
        return Text("" if rate is None else f"{rate:,.0f} {self.bar.event.unit}s/s", no_wrap=True)


class PlainBar(_Bar):
    """A line now and then."""

    def __init__(self, terminal: Terminal, event: Started) -> None:
        super().__init__(event)
        self.terminal = terminal
        self.told = self._began

    def measure(self, event: Advanced) -> None:
        """Take in how far the work has got."""
        super().advance(event)

    def advance(self, event: Advanced) -> None:
        self.measure(event)
        now = self._began + self._seconds
        if now - self.told >= _PLAIN_SECONDS or event.done == self.event.total:
            self.told = now
            self.terminal.note(self.line(event))

    def line(self, event: Advanced) -> str:
        """How far the work has got, its rate, the time left and its figures."""
        work, rate = self.event, self.rate
        share = event.done / work.total if work.total else 1.0
        text = f"{work.work}: {event.done:,} of {work.total:,} {work.unit}s ({share:.0%})"
        if rate is not None:
            left = (work.total - event.done) / rate if rate else 0.0
            text += f", {rate:,.0f} {work.unit}s/s, {_duration(left)} left"
        values = _values(event)
        return f"{text}, {values}" if values else text


def _values(event: Advanced) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in event.values.items())


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
