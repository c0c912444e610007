"""A system without POSIX, made up: what reads works, what writes says in one line what it needs."""

import subprocess
import sys

import numpy as np
import pytest

import cpsae
from cpsae.training.settings import FitSettings

WITHOUT_POSIX = """
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
del signal.SIGHUP, os.O_DIRECTORY, os.pread, os.pwrite
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store and a run; reading them changes evaluation.json alone."""
    folder = tmp_path_factory.mktemp("place")
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    cpsae.write_store(folder / "acts.zarr", rows)
    settings = FitSettings(steps=2, batch_size=16, device="cpu")
    cpsae.fit(folder / "acts.zarr", settings, out=folder / "run")
    return folder


def elsewhere(place, code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX + code], cwd=place, capture_output=True, text=True
    )


def command(line: str) -> str:
    return f"sys.argv = {['cpsae', *line.split()]}\nfrom cpsae.cli.main import main\nmain()"


def test_reading_from_python(place) -> None:
    code = """
import cpsae
store = cpsae.open_store("acts.zarr")
rows = next(store.evaluation.batches(4))
print(store.d, len(rows), cpsae.load("run").W_dec.shape[1])
"""
    done = elsewhere(place, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8", "4", "8"]


@pytest.mark.parametrize("line", ["info acts.zarr", "info run", "verify acts.zarr", "evaluate run"])
def test_reading_commands(place, line) -> None:
    done = elsewhere(place, command(line))
    assert done.returncode == 0, done.stderr
    assert done.stdout


WRITING = {
    "fit": command("fit --store acts.zarr --steps 2 --batch-size 16 --out other --device cpu"),
    "fresh": command("fit --store acts.zarr --steps 2 --batch-size 16 --out run --fresh"),
    "write_store": """
import cpsae, numpy
try:
    cpsae.write_store("mine.zarr", numpy.ones((4, 2), numpy.float32))
except cpsae.CpsaeError as error:
    sys.exit(f"error: {error}")
""",
    "lock": """
from pathlib import Path
from cpsae.locks import writer_lock
from cpsae.errors import PlatformError
try:
    writer_lock(Path("acts.zarr"), "store").__enter__()
except PlatformError as error:
    sys.exit(f"error: {error}")
""",
}


@pytest.mark.parametrize("code", WRITING.values(), ids=WRITING)
def test_what_writes_says_what_it_needs(place, code) -> None:
    before = sorted(place.rglob("*"))
    done = elsewhere(place, code)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "needs a POSIX system with fcntl locks" in last
    assert "Traceback" not in done.stderr
    assert sorted(place.rglob("*")) == before
