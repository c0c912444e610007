"""The demo's text: the source of Python's own standard library, as it is on this machine."""

import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from cpsae.durable import write_atomic
from cpsae.errors import CorpusError

TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Folders that repeat the library or are not of it."""
TABLES = frozenset({"encodings", "pydoc_data"})
"""Folders of long tables, which a small sample of the library would drown in."""


def library_files(
    root: Path | None = None, left_out: frozenset[str] = TESTS | TABLES
) -> list[Path]:
    """The .py files of the standard library at `root` (default: this Python's), sorted by name,
    but for those in folders that are named in `left_out`.

    Raises CorpusError where there are none.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    files = sorted(
        file
        for file in root.rglob("*.py")
        if not left_out.intersection(file.relative_to(root).parts[:-1])
    )
    if not files:
        raise CorpusError(
            f"{root}: this Python comes without its library's source; use another Python, or "
            "`cpsae extract` with a --dataset of your own"
        )
    return files


def library_documents(
    root: Path | None = None, left_out: frozenset[str] = TESTS | TABLES
) -> Iterator[str]:
    """The text of each of `library_files` that is UTF-8 and not empty."""
    for file in library_files(root, left_out):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if text.strip():
            yield text


def write_corpus(path: Path) -> Path:
    """Write the documents as a .jsonl that `cpsae extract --dataset` takes; kept if it is there.

    They are shuffled by a fixed seed: the demo reads a tenth of them, which is to be a fair one.
    """
    if not path.exists():
        documents = list(library_documents())
        random.Random(0).shuffle(documents)
        lines = (json.dumps({"text": text}) + "\n" for text in documents)
        write_atomic(path, "".join(lines).encode())
    return path
