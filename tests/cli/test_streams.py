"""Output whose encoding has no sign for a character: it is escaped, and the work's end stays."""

import json
import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import numpy as np
import pytest

import cpsae
from cpsae.cli.streams import LastingStream

NAMES = {"accent": "caf\u00e9", "signs": "\u65e5\u672c", "bytes": os.fsdecode(b"raw\xe9")}
ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-8"]


def run(encoding: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "cpsae", *arguments],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )


def escaped(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "backslashreplace")


@pytest.mark.parametrize(
    ("encoding", "name"), [("ascii", NAMES["accent"]), ("latin-1", NAMES["signs"])]
)
def test_every_stage_ends_well_whatever_its_folders_are_called(tmp_path, encoding, name) -> None:
    folder = tmp_path / name
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    store, out = cpsae.write_store(folder / "acts.zarr", rows), folder / "run"
    small = ["--steps", "2", "--batch-size", "16", "--device", "cpu"]
    lines = {
        "fit": run(encoding, "fit", "--store", str(store), "--out", str(out), *small),
        "info": run(encoding, "info", str(out)),
        "verify": run(encoding, "verify", str(store)),
        "evaluate": run(encoding, "evaluate", str(out)),
    }
    for command, done in lines.items():
        assert done.returncode == 0, (command, done.stderr)
        assert escaped(name, encoding) in done.stdout, (command, done.stdout)
    assert b"explained_variance" in lines["fit"].stdout and b"fit: 2 of 2" in lines["fit"].stderr
    told = json.loads(run(encoding, "info", str(store), "--json").stdout)
    assert told["store"] == str(store)


@pytest.mark.parametrize(
    ("command", "encoding", "name"),
    [
        ("info", "ascii", NAMES["accent"]),
        ("verify", "utf-8:strict", NAMES["bytes"]),
        ("evaluate", "latin-1", NAMES["signs"]),
        ("fit --store", "cp1252", NAMES["bytes"]),
    ],
)
def test_errors_are_one_escaped_line(tmp_path, encoding, name, command) -> None:
    done = run(encoding, *command.split(), str(tmp_path / name))
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1, done.stderr
    assert escaped(name, encoding.split(":")[0]) in done.stderr


@pytest.mark.parametrize("command", ["", "extract", "fit", "evaluate", "info", "verify", "demo"])
def test_help_in_ascii(command) -> None:
    done = run("ascii", *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"Usage: ") and done.stderr == b""


@pytest.mark.parametrize("text", ["caf\u00e9\n", "\u65e5\n", "\udce9\n", "plain\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stream_goes_on_after_what_it_cannot_encode(encoding, text) -> None:
    written = BytesIO()
    stream = LastingStream(TextIOWrapper(written, encoding=encoding))
    assert stream.write(text) == len(text)
    stream.write("after\n")
    stream.flush()
    assert written.getvalue() == escaped(text, encoding) + b"after\n"
