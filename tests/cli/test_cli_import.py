"""`cpsae import`: what it prints, JSON, refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_refused
from strict_json import read_strictly

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from row_files import D, contexts  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with rows in it, which the command is run in."""
    np.save(tmp_path / "a.npy", contexts().reshape(-1, D))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_and_json(command, place) -> None:
    done = command("import", "a.npy", "--store", "a.zarr", "--layer", "3")
    title, *table = [" ".join(line.split()) for line in done.out.splitlines()]
    assert (done.code, title) == (0, "a.zarr")
    assert table[:3] == ["vectors 270", "evaluation_vectors 30", "d 12"]
    assert "hook resid_post" in table
    assert done.err.splitlines()[-1] == "next: cpsae fit --store a.zarr"
    again = command("import", "a.npy", "--store", "a.zarr", "--layer", "3", "--json")
    content = read_strictly(again.out)
    assert (content["vectors"], content["layer"], content["store_dtype"]) == (270, 3, "bfloat16")
    assert any(line == "a.zarr is complete" for line in again.err.splitlines())
    assert (place / "a.zarr/zarr.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["none.npy", "--store", "s"], 1, "none.npy: no such file or folder; check the path"),
        (["empty", "--store", "s"], 1, "empty: expected a .npy or .safetensors file"),
        (["a.npy"], 2, "Missing option '--store'"),
        (["a.npy", "--store", "s", "--hook", "x"], 2, "--hook x: expected one of resid_pre"),
        (["a.npy", "--store", "ftp://b/s"], 1, "ftp://b/s"),
        (["a.npy", "--store", "a.npy"], 1, "a.npy"),
    ],
)
def test_refusals(command, place, arguments, code, text) -> None:
    assert_refused(lambda: command("import", *arguments), place, code, text)
