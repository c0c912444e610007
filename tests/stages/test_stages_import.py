"""Stores of other programs' activations: which rows, which are held out, and what a kill leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import cpsae
from cpsae.errors import (
    DifferentSettingsError,
    DiskError,
    NonFiniteError,
    SettingsError,
    SourceError,
)
from cpsae.store.writer import StoreWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from row_files import D, T, contexts, write_cached  # noqa: E402


@pytest.fixture
def small_chunks(monkeypatch):
    """Of 16 rows."""
    monkeypatch.setattr("cpsae.store.arrays.rows_per_chunk_of_arrays", lambda _d, _dtype: 16)


def rows_of(part):
    return np.concatenate([part.rows(chunk) for chunk in part.chunks])


def sorted_rows(rows):
    return rows[np.lexsort(rows.T)]


def files_in(store):
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in store.rglob("*")
        if file.is_file()
    }


def test_each_row_once_and_the_last_contexts_held_out(tmp_path) -> None:
    source, made = write_cached(tmp_path / "cached", contexts()), contexts()
    done = cpsae.import_rows(source, tmp_path / "a.zarr", store_dtype="float32")
    training, held_out = rows_of(done.store.training), rows_of(done.store.evaluation)
    assert len(held_out) % T == 0 and len(training) + len(held_out) == 60 * T
    last = len(held_out) // T
    np.testing.assert_array_equal(held_out, made[-last:].reshape(-1, D))
    expected = made[:-last].reshape(-1, D)
    assert not np.array_equal(training, expected)  # shuffled
    np.testing.assert_array_equal(sorted_rows(training), sorted_rows(expected))
    hook = done.store.manifest.hook
    assert (hook.layer, hook.name) == (19, "resid_post")
    assert done.store.manifest.description == "layer 19, imported from cached"


def test_without_the_first_position(tmp_path) -> None:
    source = write_cached(tmp_path / "cached", contexts(), name="blocks.3.hook_mlp_out")
    done = cpsae.import_rows(source, tmp_path / "a.zarr", drop_first=True, store_dtype="float32")
    found = np.concatenate([rows_of(done.store.training), rows_of(done.store.evaluation)])
    expected = contexts()[:, 1:].reshape(-1, D)
    np.testing.assert_array_equal(sorted_rows(found), sorted_rows(expected))
    assert (done.store.manifest.hook.layer, done.store.manifest.hook.name) == (3, "mlp_out")


def test_rows_of_other_documents(tmp_path) -> None:
    rows = contexts().reshape(-1, D)
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", rows[:7] + 1)
    done = cpsae.import_rows(
        tmp_path / "a.npy",
        tmp_path / "a.zarr",
        evaluation=tmp_path / "b.npy",
        layer=4,
        hook="attn_out",
        model="mine",
        store_dtype="float32",
    )
    np.testing.assert_array_equal(rows_of(done.store.evaluation), rows[:7] + 1)
    assert done.store.training.vectors == len(rows)
    hook = done.store.manifest.hook
    assert (hook.layer, hook.name) == (4, "attn_out")
    assert done.store.manifest.description == "mine, layer 4, imported from a.npy"


def test_the_same_rows_in_any_file_give_the_same_activations(tmp_path) -> None:
    rows = contexts().reshape(-1, D)
    np.save(tmp_path / "a.npy", rows)
    torch.save({}, tmp_path / "x.pt")
    from safetensors.torch import save_file

    save_file({"a": torch.from_numpy(rows)}, tmp_path / "a.safetensors")
    stores = [
        cpsae.import_rows(tmp_path / name, tmp_path / f"{name}.zarr", store_dtype="float32").store
        for name in ("a.npy", "a.safetensors")
    ]
    for chunk in stores[0].chunks:
        assert np.array_equal(stores[0].bucket.read(chunk.key), stores[1].bucket.read(chunk.key))


@pytest.mark.usefixtures("small_chunks")
def test_a_full_disk_leaves_what_the_same_call_goes_on_from(tmp_path, monkeypatch) -> None:
    np.save(tmp_path / "a.npy", contexts().reshape(-1, D))
    cpsae.import_rows(tmp_path / "a.npy", tmp_path / "whole.zarr")
    write, calls = StoreWriter.write, []

    def fails_at_the_fifth(writer, chunk, rows):
        calls.append(chunk.key)
        if len(calls) == 5:
            raise DiskError("the disk is full")
        return write(writer, chunk, rows)

    monkeypatch.setattr(StoreWriter, "write", fails_at_the_fifth)
    with pytest.raises(DiskError):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr")
    cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr")
    assert len(calls) == len(set(calls)) + 1  # only the one that failed was tried again
    assert files_in(tmp_path / "a.zarr") == files_in(tmp_path / "whole.zarr")


@pytest.mark.usefixtures("small_chunks")
def test_other_rows_or_settings_are_refused(tmp_path) -> None:
    np.save(tmp_path / "a.npy", contexts().reshape(-1, D))
    said: list[str] = []

    def on_event(event):
        said.append(getattr(event, "text", ""))

    cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr")
    before = files_in(tmp_path / "a.zarr")
    cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr", on_event=on_event)
    assert any(text.endswith("a.zarr is complete") for text in said)
    with pytest.raises(DifferentSettingsError, match=r"made in another way \(.*seed: 0, not 1"):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr", seed=1)
    np.save(tmp_path / "a.npy", contexts(seed=1).reshape(-1, D))
    with pytest.raises(DifferentSettingsError, match="identity.source.files"):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr")
    cpsae.write_store(tmp_path / "b.zarr", contexts().reshape(-1, D))
    with pytest.raises(DifferentSettingsError):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "b.zarr")
    assert files_in(tmp_path / "a.zarr") == before


def test_a_row_that_is_no_number_leaves_nothing(tmp_path) -> None:
    rows = contexts().reshape(-1, D)
    rows[31, 2] = np.nan
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(NonFiniteError, match="activations: row 31 holds NaN or Inf"):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_killed_it_goes_on(tmp_path) -> None:
    """With kill -9, at whatever moment."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((60_000, 64)))
    cpsae.import_rows(tmp_path / "a.npy", tmp_path / "whole.zarr")
    code = (
        "import sys, cpsae.store.arrays as arrays; from cpsae.stages.import_ import import_rows\n"
        "import time; write = arrays.StoreWriter.write\n"
        "arrays.StoreWriter.write = lambda *a: (write(*a), time.sleep(0.2))\n"
        "import_rows(*sys.argv[1:])\n"
    )
    store = tmp_path / "a.zarr"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.npy"), str(store)])
    until = time.monotonic() + 60
    while not list(store.glob("activations/c/*/0")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(list(store.glob("activations/c/*/0"))) < 8
    cpsae.import_rows(tmp_path / "a.npy", store)
    assert files_in(store) == files_in(tmp_path / "whole.zarr")


def test_trained_on(tmp_path) -> None:
    source = write_cached(tmp_path / "cached", contexts(400))
    done = cpsae.import_rows(source, tmp_path / "a.zarr")
    settings = cpsae.FitSettings(kind="relu", growth="none", steps=3, batch_size=64)
    fitted = cpsae.fit(done.path, settings, out=tmp_path / "run")
    assert np.isfinite(fitted.summary["explained_variance"])


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        (
            {"drop_first": True},
            SettingsError,
            "--drop-first: .* does not say which rows are",
        ),
        ({"hook": "middle"}, SettingsError, "--hook middle: expected one of resid_pre"),
        ({"hook": "mlp_out"}, SettingsError, "--hook mlp_out: give --layer too"),
        ({"store_dtype": "int8"}, SettingsError, "--store-dtype int8: expected one of bfloat16"),
        ({"tensor": "a"}, SourceError, "leave --tensor out"),
        ({"evaluation": "none.npy"}, SourceError, "none.npy: no such file or folder"),
    ],
)
def test_refusals(tmp_path, asked, error, text) -> None:
    np.save(tmp_path / "a.npy", contexts().reshape(-1, D))
    with pytest.raises(error, match=text):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr", **asked)
    assert not (tmp_path / "a.zarr").exists()


def test_too_few_rows(tmp_path) -> None:
    np.save(tmp_path / "a.npy", contexts(1))
    with pytest.raises(SourceError, match="5 rows cannot be divided into those to train on"):
        cpsae.import_rows(tmp_path / "a.npy", tmp_path / "a.zarr")
