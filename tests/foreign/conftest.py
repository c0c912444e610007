"""A package that declares a kind, installed as pip leaves it: a module and its metadata."""

import shutil
from pathlib import Path

import pytest
from packages import install

from cpsae.sae import kinds

MODULE = Path(__file__).parent / "jumping.py"


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch):
    """visible(folder) makes what is installed there importable, in this process."""

    def make(folder: Path) -> None:
        monkeypatch.syspath_prepend(str(folder))
        kinds._declared.cache_clear()

    yield make
    kinds._declared.cache_clear()


@pytest.fixture
def jumping(tmp_path: Path, visible) -> Path:
    """The folder in which the package `jumping-sae` is installed."""
    folder = install(tmp_path / "site", "jumping-sae", {"jump-ing": "jumping:Jumping"})
    shutil.copy(MODULE, folder)
    visible(folder)
    return folder
