"""A little of pipelines/fuzz.py: no parser ends otherwise than with a result or a CpsaeError."""

import os
import signal
import sys

import pytest
from fuzz import fuzz
from fuzz_targets import TARGETS, Target

from cpsae.errors import StoreError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def test_no_findings() -> None:
    assert fuzz(list(TARGETS), 12, seed=1) == []


def test_it_finds_what_there_is(monkeypatch) -> None:
    samples: list[bytes] = []

    def read(folder) -> None:
        content = (folder / "corpus/plain.txt").read_bytes()
        if not samples:  # what is read first is the sample as it is
            samples.append(content)
            return
        number = len(content)
        if number % 4 == 0:
            raise KeyError("no refusal")
        if number % 4 == 1:
            (folder.parent / "elsewhere").write_text("")
        if number % 4 == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        raise StoreError("refused")

    monkeypatch.setitem(TARGETS, "corpus", Target("corpus/plain.txt", read))
    found = [str(finding["what"]) for finding in fuzz(["corpus"], 100, seed=0)]
    assert any(what.startswith("KeyError") for what in found)
    assert "wrote outside: ['elsewhere']" in found
    assert "ended the process: -9" in found
