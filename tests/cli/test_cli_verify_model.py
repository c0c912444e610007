"""`cpsae verify --repair --model`: damaged chunks computed again on the spot."""

import json
import random
import shutil

import numpy as np
import pytest
from refusals import assert_refused
from tiny import chunks_of, content_of

from cpsae.store import open_store, write_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest, write_manifest


def flip(file, byte=None) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if byte is None else byte] ^= 1
    file.write_bytes(content)


def objects_of_chunks(store) -> list[str]:
    return [key for chunk in open_store(store).manifest.chunks() for key in chunk.objects()]


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_leaves_no_trace(command, finished, store, seed) -> None:
    chance = random.Random(seed)
    keys = chance.sample(objects_of_chunks(store), 5)
    for key in keys:
        file = store / key
        damages = [
            file.unlink,
            lambda file=file: flip(file, chance.randrange(file.stat().st_size)),
            lambda file=file: file.write_bytes(file.read_bytes()[: chance.randrange(100)]),
            lambda file=file: file.write_bytes(bytes(file.stat().st_size)),
        ]
        chance.choice(damages)()
    done = command("verify", store, "--repair", "--model", "--json")
    assert done.code == 0
    assert {problem["key"] for problem in json.loads(done.out)["problems"]} >= set(keys)
    assert chunks_of(store) == chunks_of(finished)
    assert read_manifest(Folder(store)) == read_manifest(Folder(finished))


def test_it_says_how_near_the_new_chunks_are(command, store) -> None:
    flip(store / "activations/c/0/0")  # its checksum and norms are left
    (store / "activations/c/1/0").unlink()  # its norms
    (store / "evaluation/activations/c/0/0").unlink()
    (store / "evaluation/statistics/norms/c/0").unlink()  # nothing
    found = json.loads(command("verify", store, "--repair", "--model", "store", "--json").out)
    computed = {chunk.pop("key"): chunk for chunk in found["computed"]}
    assert computed == {
        "activations/c/0/0": {"same": True, "norm_difference": 0.0},
        "activations/c/1/0": {"same": True, "norm_difference": 0.0},
        "evaluation/activations/c/0/0": {"same": None, "norm_difference": None},
    }


def test_a_chunk_that_comes_out_otherwise_is_told(command, store) -> None:
    norms = store / "statistics/norms/c/0"
    other = np.memmap(norms, "<f4", "r+", shape=(norms.stat().st_size // 4,))
    from google_crc32c import value

    other[3] *= 1.5  # as if the old row had been longer
    other[-1:].view("<u4")[:] = value(other[:-1].tobytes())
    other.flush()
    (store / "activations/c/0/0").unlink()
    done = command("verify", store, "--repair", "--model")
    assert done.code == 0
    assert "1 with norms that differ by up to 3.3e-01 from the old" in done.out
    assert command("verify", store).code == 0


def test_another_model_is_refused_and_nothing_is_touched(command, store, gemma, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(gemma, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.embed_tokens.weight"][7] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    flip(store / "activations/c/1/0")
    before = content_of(store)
    run = lambda: command("verify", store, "--repair", "--model", other)  # noqa: E731
    assert_refused(run, store, 1, r"is not the one that .* was made with")
    (tmp_path / "gone").mkdir()
    run = lambda: command("verify", store, "--repair", "--model", tmp_path / "none")  # noqa: E731
    assert_refused(run, store, 1, "no such file or folder")
    assert content_of(store) == before


def test_an_unfinished_store_is_mended_and_stays_unfinished(command, finished, store) -> None:
    manifest = read_manifest(Folder(store))
    write_manifest(Folder(store), manifest.model_copy(update={"complete": False}))
    (store / "activations/c/1/0").unlink()
    flip(store / "activations/c/0/0")
    assert command("verify", store, "--repair", "--model").code == 0
    first = "activations/c/0/0"
    assert (store / first).read_bytes() == (finished / first).read_bytes()
    assert not (store / "activations/c/1/0").exists()
    assert not read_manifest(Folder(store)).complete


def test_a_store_of_arrays_has_no_model(command, tmp_path) -> None:
    rows = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    store = tmp_path / "arrays.zarr"
    write_store(store, rows)
    flip(store / "activations/c/0/0")
    run = lambda: command("verify", store, "--repair", "--model")  # noqa: E731
    assert_refused(run, store, 1, "was made from arrays")


def test_a_model_without_repair_is_wrong(command, store) -> None:
    assert command("verify", store, "--model").code == 2


def test_all_well_computes_nothing(command, finished) -> None:
    before = content_of(finished)
    done = command("verify", finished, "--repair", "--model", "--json")
    assert done.code == 0 and json.loads(done.out)["computed"] == []
    assert content_of(finished) == before
