"""What every refusal looks like: one line, an exit code, nothing changed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.errors import GatedRepoError
from tiny import content_of

GATED = GatedRepoError.__new__(GatedRepoError)  # its constructor wants a response


def assert_refused(run: Callable[[], Any], folder: Path, code: int, text: str) -> None:
    """`run` ends with `code` and one line that `text` (a pattern) is in; `folder` is unchanged."""
    names, before = sorted(folder.rglob("*")), content_of(folder)
    done = run()
    assert done.code == code, done.err
    assert done.out == ""
    *notes, last = done.err.splitlines()
    assert last.startswith("error: ") and re.search(text, last), last
    assert not [note for note in notes if "error" in note.lower() or "Traceback" in note], notes
    assert (sorted(folder.rglob("*")), content_of(folder)) == (names, before)
