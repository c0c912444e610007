"""Where what a stage reports is shown: in a notebook, on a terminal, or, piped, as plain lines."""

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cpsae.cli.terminal import PlainBar, Terminal
from cpsae.events import Advanced, Event, Finished, Note, OnEvent, Started

_REDRAWN = 0.25
"""Seconds between two pictures of a bar in a notebook."""


@contextmanager
def listening(progress: bool, on_event: OnEvent | None) -> Iterator[OnEvent]:
    """Who hears what a stage reports: `on_event`, or what shows it; without `progress` it shows
    warnings alone."""
    if on_event is not None:
        yield on_event
        return
    terminal = NotebookTerminal(not progress) if in_notebook() else Terminal(quiet=not progress)
    try:
        yield terminal.on_event
    finally:
        terminal.close()


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, which shows more than text."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class NotebookTerminal(Terminal):
    """Notes as lines of a cell's output, each bar as one display of it that changes. Takes no
    widgets: what is seen last stays in the saved notebook."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._shown: _NotebookBar | None = None

    def on_event(self, event: Event) -> None:
        """Show what a stage reports."""
        if isinstance(event, Note):
            self.note(event.text, event.kind)
        elif isinstance(event, Started):
            self._shown = None if self.quiet else _NotebookBar(self, event)
        elif self._shown is not None and isinstance(event, Advanced):
            self._shown.advance(event)
        elif self._shown is not None and isinstance(event, Finished):
            self._shown.finish()
            self._shown = None

    def note(self, text: str, kind: str = "fact") -> None:
        """A line of the cell's output."""
        if kind == "warning":
            print(f"warning: {text}")
        elif not self.quiet and kind != "detail":
            print(text)

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self._shown is not None:
            self._shown.finish()


class _NotebookBar(PlainBar):
    def __init__(self, terminal: Terminal, event: Started) -> None:
        super().__init__(terminal, event)
        self._drawn = 0.0
        self._display: Any = None
        self._line = ""

    def advance(self, event: Advanced) -> None:
        self.measure(event)
        self._line = self.line(event)
        if time.monotonic() - self._drawn >= _REDRAWN or self.done == self.event.total:
            self._draw()

    def finish(self) -> None:
        if self._line:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        self._drawn = time.monotonic()
        bar = f'<progress value="{self.done}" max="{self.event.total}"></progress>'
        content = {
            "text/plain": self._line,
            "text/html": f"{bar} {html.escape(self._line)}",
        }
        if self._display is None:
            self._display = display(content, raw=True, display_id=True)
        else:
            self._display.update(content, raw=True)
