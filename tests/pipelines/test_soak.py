"""A short soak: every third sort of fault, on an extraction or a fit. `python pipelines/soak.py` is
the long form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import soak
from soak import Trial, ledger, note, table
from soak_processes import Ended

SCRIPT = Path(soak.__file__)
FAULTS = 20


def test_nothing_is_lost(tmp_path):
    out = tmp_path / "soak.json"
    options = [
        "--faults",
        str(FAULTS),
        "--seed",
        "1",
        "--scratch",
        str(tmp_path),
        "--out",
        str(out),
    ]
    done = subprocess.run(  # of its own: it forks, which a process with threads must not
        [sys.executable, str(SCRIPT), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["faults"] == found["recovered"] == FAULTS
    assert found["sorts"] >= 12
    assert {found[key] for key in ("lost", "wrong_bytes", "tracebacks", "silent")} == {0}
    stages = {trial["stage"] for trial in found["trials"]}
    assert stages == {"extract", "fit"}


def test_the_ledger_counts_what_went_wrong():
    good = Trial(0, "fit", "SIGKILL", recovered=True)
    bad = Trial(1, "extract", "SIGKILL", lost=["activations/c/0/0"])
    wrong = Trial(2, "extract", "disk full", wrong=["zarr.json"])
    note(bad, "extract", Ended(1, "Traceback (most recent call last):\nOSError"))
    note(wrong, "extract", Ended(1, ""))
    found = ledger([good, bad, wrong])
    assert (found["faults"], found["sorts"], found["recovered"]) == (3, 2, 1)
    assert (found["lost"], found["wrong_bytes"]) == (2, 1)
    assert (found["tracebacks"], found["silent"]) == (1, 1)
    assert "| SIGKILL | 1 | 1 | 1 | 1 | 0 | 1 |" in table([good, bad, wrong])


def test_every_sort_of_damage_does_something(tmp_path):
    """But for those that change no content."""
    import random

    from soak_faults import RUN_DAMAGES

    harmless = {"leftovers and a stale lock", "other times of files"}
    for sort, damage in RUN_DAMAGES.items():
        folder = tmp_path / sort
        (folder / "checkpoints/step-000010").mkdir(parents=True)
        names = ["config.json", "metrics.jsonl", "start.safetensors"]
        files = [folder / name for name in names]
        files += [folder / "checkpoints/step-000010/state.json"]
        for file in files:
            file.write_bytes(bytes(range(1, 200)))
        target = damage(random.Random(0), folder)
        same = [
            file.is_file() and not file.is_symlink() and file.read_bytes() == bytes(range(1, 200))
            for file in files
        ]
        assert all(same) == (sort in harmless), target
