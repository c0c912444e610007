"""All that a command shows: progress, notes, tables. Nothing else in cpsae knows of rich.

Results go to standard output; progress and notes go to standard error, as a live bar on a terminal
and as plain lines elsewhere.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cpsae.cli.interrupts import note_progress, raise_if_lost
from cpsae.events import Advanced, Event, Finished, Note, Started

_PLAIN_SECONDS = 10.0
"""Time between two plain progress lines."""
_UNBROKEN = 10_000
"""Columns of what is no terminal: a program that reads a table wants each row on one line."""


class Terminal:
    """One command's output. `quiet` leaves errors and results; `verbose` adds details."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        # no markup, no emoji: paths may hold brackets and colons
        plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
        self.out = Console(soft_wrap=True, **plain)
        if not self.out.is_terminal:
            self.out.width = _UNBROKEN
        self.err = Console(stderr=True, soft_wrap=True, **plain)
        self._bar: _Bar | None = None

    def on_event(self, event: Event) -> None:
        """Show what a stage reports."""
        raise_if_lost()
        if isinstance(event, Note):
            self.note(event.text, event.kind)
        elif isinstance(event, Started):
            self.close()
            live = self.err.is_terminal and not self.quiet
            self._bar = _LiveBar(self.err, event) if live else _PlainBar(self, event)
        elif self._bar is not None and isinstance(event, Advanced):
            self._bar.advance(event)
        elif self._bar is not None and isinstance(event, Finished):
            self._bar.finish()
            self._bar = None

    def note(self, text: str, kind: str = "fact") -> None:
        """A line on standard error."""
        if kind == "warning":
            self.err.print(Text(f"warning: {text}", style="yellow"))
        elif not self.quiet and (kind != "detail" or self.verbose):
            self.err.print(Text(text, style="dim" if kind == "detail" else ""))

    def result(self, content: Mapping[str, Any]) -> bool:
        """With --json print the command's one object and give True; else give False."""
        if self.as_json:
            print(json.dumps(_finite(content), indent=2, default=str))
        return self.as_json

    def print(self, text: "str | Text | Table" = "") -> None:
        """A line or table on standard output."""
        self.out.print(text)

    def table(self, title: str, rows: Sequence[tuple[str, Any]]) -> None:
        """Names and values on standard output."""
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        for name, value in rows:
            table.add_row(Text(name, style="cyan"), Text(shown(value)))
        self.out.print(table)

    def close(self) -> None:
        """Leave no live bar behind, whatever ended the command."""
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
        self._note_progress(event.done)

    def advance(self, event: Advanced) -> None:
        self._note_progress(event.done)

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
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(event.unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", style="dim"),
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


class _Rate(ProgressColumn):
    """Units a second since the work began here."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} {self.unit}s/s")


class _PlainBar(_Bar):
    def __init__(self, terminal: Terminal, event: Started) -> None:
        super().__init__(event)
        self.terminal = terminal
        self.began = self.told = time.monotonic()
        self.done = event.done

    def advance(self, event: Advanced) -> None:
        super().advance(event)
        self.done = event.done
        now = time.monotonic()
        if now - self.told >= _PLAIN_SECONDS or event.done == self.event.total:
            self.told = now
            self.terminal.note(self._line(event, now - self.began))

    def _line(self, event: Advanced, seconds: float) -> str:
        work = self.event
        share = event.done / work.total if work.total else 1.0
        rate = (event.done - work.done) / max(seconds, 1e-9)
        left = (work.total - event.done) / rate if rate else 0.0
        text = (
            f"{work.work}: {event.done:,} of {work.total:,} {work.unit}s ({share:.0%}), "
            f"{rate:,.0f} {work.unit}s/s, {_duration(left)} left"
        )
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
