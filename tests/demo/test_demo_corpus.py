"""The demo's text: the standard library of this machine, and nothing else."""

import json
from pathlib import Path

import pytest

from cpsae.demo.corpus import TESTS, library_files, write_corpus
from cpsae.errors import CorpusError


def test_only_source_files_outside_the_left_out_folders(tmp_path: Path) -> None:
    kept = ["abc.py", "email/parser.py"]
    others = ["test/t.py", "site-packages/x/y.py", "email/test/t.py", "encodings/cp1.py", "a.txt"]
    for name in [*kept, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert library_files(tmp_path) == [tmp_path / name for name in kept]
    assert tmp_path / "encodings/cp1.py" in library_files(tmp_path, TESTS)


def test_a_python_without_source_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="comes without its library's source"):
        library_files(tmp_path)


def test_corpus_is_the_librarys_text_and_is_written_once(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.jsonl")
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    readable = [file for file in library_files() if file.read_bytes().strip()]
    assert 0.95 * len(readable) <= len(texts) <= len(readable)
    assert (Path(json.__file__).read_text()) in texts
    before = path.stat().st_mtime_ns
    assert write_corpus(path).stat().st_mtime_ns == before
