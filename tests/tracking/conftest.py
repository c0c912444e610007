"""The small stores of tests/training, and trackers that keep to a folder."""

import sys
from pathlib import Path

import pytest

from cpsae.tracking import process

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

from small_stores import make_store, one_thread, plain_store  # noqa: E402, F401


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder; what trackers write outside of runs comes here, and nothing goes out."""
    monkeypatch.chdir(tmp_path)
    for name in ("_FINISHED_SECONDS", "_STOPPED_SECONDS"):  # a busy machine is no failure
        monkeypatch.setattr(process, name, 120.0)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "WANDB_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
