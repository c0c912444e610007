"""`cpsae info`: what is in a store or a run, whatever state it is in."""

import json
import subprocess
import sys

import numpy as np
import pytest
from refusals import assert_refused
from tiny import content_of

import cpsae
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest, write_manifest


def test_a_store(command, finished) -> None:
    before = content_of(finished)
    content = json.loads(command("info", finished, "--json").out)
    assert (content["kind"], content["complete"]) == ("store", True)
    assert content["chunks"] == content["chunks_present"] == 5
    assert (content["layer"], content["hook"]) == (19, "output of block 19 = hidden_states[20]")
    assert content["first_position_dropped"] is True
    assert content["rows_over_10_medians"] == 0
    assert content["bytes"] == sum(f.stat().st_size for f in finished.rglob("*") if f.is_file())
    table = command("info", finished).out
    assert "vectors" in table and "3,000" in table
    assert content_of(finished) == before


def test_which_files_a_store_is_of(command, gemma, tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(9):
        line = json.dumps({"text": f"number {number} of nine " * 60})
        (folder / f"{number}.jsonl").write_text(line + "\n")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    store = tmp_path / "acts.zarr"
    options = ("--layer", 1, "--tokens", 16, "--vectors", 300, "--device", "cpu")
    done = command(*("extract", "--model", gemma, "--dataset", folder, "--store", store, *options))
    assert done.code == 0, done.err
    content = json.loads(command("info", store, "--json").out)
    assert content["split"] == "train"
    names = [entry["name"] for entry in content["files_read"]]
    assert names == [f"{number}.jsonl" for number in range(len(names))] and names
    assert {entry["as"] for entry in content["files_read"]} == {"jsonl"}
    assert content["files_left_out"] == [{"name": "photo.png", "reason": "an image"}]
    table = command("info", store).out
    assert "0.jsonl (jsonl), " in table and "photo.png (an image)" in table
    if len(names) > 5:
        assert f"and {len(names) - 5} more" in table
    (store / "provenance.json").write_text("{")
    done = command("info", store, "--json")
    assert done.code == 1 and "provenance.json is damaged" in json.loads(done.out)["damaged"]


def test_it_waits_for_no_language_model(store) -> None:
    program = (
        "import sys; from cpsae.cli.main import _run; sys.argv = ['cpsae', 'info', sys.argv[1]]; "
        "code = _run(); sys.exit(code or 'transformers' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(store)], check=True, capture_output=True)


def test_an_unfinished_store(command, store) -> None:
    write_manifest(
        Folder(store), read_manifest(Folder(store)).model_copy(update={"complete": False})
    )
    for chunk in ("activations/c/1/0", "activations/c/2/0"):
        (store / chunk).unlink()
    content = json.loads(command("info", store, "--json").out)
    assert (content["complete"], content["chunks_present"]) == (False, 3)


def test_a_store_without_tokens(command, store) -> None:
    marks = {"complete": False, "tokens_complete": False}
    write_manifest(Folder(store), read_manifest(Folder(store)).model_copy(update=marks))
    assert json.loads(command("info", store, "--json").out)["complete"] is False


def test_a_run_finished_and_not(command, store, tmp_path) -> None:
    run = tmp_path / "run"
    command("fit", "--store", store, "--out", run, "--steps", 10, "--batch-size", 64)
    content = json.loads(command("info", run, "--json").out)
    assert (content["kind"], content["complete"], content["last_step"]) == ("run", True, 10)
    assert "explained_variance" in content
    assert content["steps_at_hand"] == [10]
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 2')  # a line that is being written
    content = json.loads(command("info", run, "--json").out)
    assert (content["complete"], content["last_step"]) == (False, 10)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (
            "config.json",
            '{"model_type": "gemma2"}',
            r"folder: is no run; its config",
        ),
        ("config.json", "[]", r"config.json: expected a JSON object"),
        ("config.json", "{", r"config.json: is not readable JSON"),
        ("zarr.json", "{", r"zarr.json: is not readable JSON"),
        ("zarr.json", '{"zarr_format": 3}', r"folder: is a Zarr group but no cpsae store"),
        ("notes.txt", "", r"folder: is no store \(it has no zarr.json\)"),
    ],
)
def test_what_is_neither(command, tmp_path, name, content, text) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_text(content)
    assert_refused(lambda: command("info", folder), tmp_path, 1, text)


def test_what_is_not_there(command, tmp_path) -> None:
    assert_refused(lambda: command("info", tmp_path / "x"), tmp_path, 1, r"x: no such store; give")
    assert command("info").code == 2


@pytest.mark.parametrize("key", ["activations/c/1/0", "statistics/summary/c/2/0"])
def test_a_damaged_store_is_described_as_far_as_it_can_be(command, store, key) -> None:
    (store / key).unlink()
    done = command("info", store, "--json")
    content = json.loads(done.out)
    assert done.code == 1
    assert (content["chunks"], content["chunks_present"]) == (5, 4)
    assert content["damaged"].startswith(f"{key}: missing; run `cpsae verify")
    assert content["vectors"] == 3000
    plain = command("info", store)
    assert plain.code == 1 and "vectors" in plain.out and f"{key}: missing" in plain.out


def test_owners_of_arrays_are_not_told_to_extract(command, tmp_path) -> None:
    import numpy as np

    from cpsae.store import write_store

    rows = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)
    path = write_store(tmp_path / "a.zarr", rows)
    (path / "activations/c/0/0").unlink()
    content = json.loads(command("info", path, "--json").out)
    assert "restore them from a copy, or write the store again" in content["damaged"]
    assert "extract" not in content["damaged"]


def test_a_folder_of_stores(command, store, tmp_path) -> None:
    import shutil

    folder = tmp_path / "many"
    for name in ("12.resid_post.zarr", "5.attn_out.zarr"):
        shutil.copytree(store, folder / name)
    content = json.loads(command("info", folder, "--json").out)
    assert content["kind"] == "stores"
    assert [one["store"] for one in content["stores"]] == [
        str(folder / "5.attn_out.zarr"),
        str(folder / "12.resid_post.zarr"),
    ]
    assert all(one["complete"] for one in content["stores"])
    verified = command("verify", folder, "--json")
    assert verified.code == 0 and len(json.loads(verified.out)["stores"]) == 2
    (folder / "5.attn_out.zarr/activations/c/0/0").unlink()
    assert command("info", folder).code == command("verify", folder).code == 1
    assert command("verify", folder, "--repair").code == 1
    content = json.loads(command("verify", folder, "--json").out)
    assert [one["complete"] for one in content["stores"]] == [False, True]


@pytest.mark.parametrize(("long", "warns"), [(0, False), (10, False), (60, True)])
def test_how_many_rows_a_run_skips(command, tmp_path, long, warns) -> None:
    rows = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    held_out, rows = rows[:100], rows[100:]
    rows[:long] *= 1000
    store, run = cpsae.write_store(tmp_path / "acts.zarr", rows, held_out), tmp_path / "run"
    small = ("--steps", 2, "--batch-size", 16, "--device", "cpu")
    done = command("fit", "--store", store, "--out", run, *small)
    shown = dict(line.split() for line in done.out.splitlines()[1:])
    assert int(shown["skipped_rows"]) == long
    assert ("of the rows are skipped" in done.err) == warns
    told = json.loads(command("info", run, "--json").out)
    assert told["skipped_rows"] == long
    assert told["skipped_share"] == pytest.approx(long / 300)
    (run / "summary.json").unlink()  # as while it trains
    assert json.loads(command("info", run, "--json").out)["skipped_share"] == told["skipped_share"]
