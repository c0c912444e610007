"""Content decides sameness: what changed under the same name, in complete and unfinished stores."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import content_of, texts

from cpsae.errors import DifferentSettingsError, SettingsError, StoreError
from cpsae.events import Note
from cpsae.stages.extract import extract
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest, write_manifest
from cpsae.store.origin import KEY

SMALL = {"vectors": 300, "layer": 0}


@pytest.fixture
def model(gemma, tmp_path) -> Path:
    """A copy of the model, of this test's own."""
    return Path(shutil.copytree(gemma, tmp_path / "model"))


@pytest.fixture(params=[True, False], ids=["complete", "unfinished"])
def begin(request, settings, model):
    """begin(**changes): the settings of a store that is complete, or lacks a chunk."""

    def make(**changes):
        chosen = settings(**{**SMALL, "model": str(model), **changes})
        path = Path(extract(chosen).path)
        if not request.param:
            chunk = next((path / "activations").glob("c/*/0"))
            chunk.unlink()
            write_manifest(
                Folder(path), read_manifest(Folder(path)).model_copy(update={"complete": False})
            )
        return chosen

    return make


def refused(chosen) -> list[str]:
    before = content_of(Path(chosen.store))
    with pytest.raises(DifferentSettingsError) as caught:
        extract(chosen)
    assert "\n" not in str(caught.value)
    assert content_of(Path(chosen.store)) == before
    return caught.value.differences


def change_weights(model: Path) -> None:
    file = model / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.0.mlp" in name)
    weights[name] = weights[name] + 1
    save_file(weights, file, metadata={"format": "pt"})


def test_other_weights_under_the_same_name(begin, model) -> None:
    chosen = begin()
    change_weights(model)
    [difference] = refused(chosen)
    assert difference.startswith("model: ")


def test_another_configuration_under_the_same_name(begin, model) -> None:
    chosen = begin()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert refused(chosen) == ["model: config.json changed"]


def test_another_tokenizer_under_the_same_name(begin, model) -> None:
    chosen = begin()
    file = model / "tokenizer.json"
    file.write_text(file.read_text().replace('"w5"', '"w5000"'))
    assert refused(chosen) == ["model: tokenizer.json changed"]
    file.unlink()
    assert refused(chosen) == ["model: tokenizer.json changed"]


def test_weights_written_anew_with_the_same_values(begin, model) -> None:
    chosen = begin()
    weights = load_file(model / "model.safetensors")
    save_file(dict(reversed(weights.items())), model / "model.safetensors", {"format": "pt"})
    extract(chosen)
    assert read_manifest(Folder(Path(chosen.store))).complete
    notes = []
    extract(chosen, notes.append)
    assert notes == [Note(f"{chosen.store} is complete")]  # its times are known by now


def test_a_copied_model_is_the_same(begin, model, tmp_path) -> None:
    chosen = begin()
    shutil.copytree(model, tmp_path / "copied")
    extract(chosen.model_copy(update={"model": str(tmp_path / "copied")}))
    assert read_manifest(Folder(Path(chosen.store))).complete


def words(seed: int) -> str:
    return "\n".join(texts(200, seed))


def swapped(file: Path, place: int) -> None:
    """Other text of the same length, and the times of the old one."""
    status = file.stat()
    data = bytearray(file.read_bytes())
    at = data.index(b"w1", place)
    data[at : at + 2] = b"w2"
    time.sleep(0.02)  # a file system's clock is coarse
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_a_corpus_that_changed_at_the_same_size(begin, tmp_path, suffix: str) -> None:
    file = tmp_path / f"corpus.{suffix}"
    if suffix == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(
            pa.table({"text": texts(200)}), file, compression="none", use_dictionary=False
        )
    elif suffix == "csv":
        file.write_text("text\n" + words(0) + "\n")
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(200)))
    else:
        file.write_text(words(0))
    chosen = begin(dataset=str(file))
    swapped(file, 100)
    assert refused(chosen) == [f"dataset.content: corpus.{suffix} changed"]


def test_a_file_of_a_folder_that_changed(begin, tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(words(number))
    chosen = begin(dataset=str(folder))
    swapped(folder / "0.txt", 50)
    assert refused(chosen) == ["dataset.content: 0.txt changed"]


def test_text_behind_what_was_read_does_not_count(begin, tmp_path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(texts(40_000)))  # 13 MB
    chosen = begin(dataset=str(file))
    swapped(file, 10_000_000)
    extract(chosen)
    swapped(file, 50)
    assert refused(chosen) == ["dataset.content: corpus.txt changed"]


def test_a_touched_or_moved_corpus_is_the_same(begin, tmp_path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text(words(0))
    chosen = begin(dataset=str(file))
    os.utime(file)
    extract(chosen)
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copy(file, tmp_path / "elsewhere" / "corpus.txt")
    file.unlink()
    extract(chosen)  # it is gone, and its tokens are whole
    extract(chosen.model_copy(update={"dataset": str(moved)}))


def test_an_unchanged_store_loads_nothing(settings, model, monkeypatch) -> None:
    chosen = settings(**SMALL, model=str(model))
    extract(chosen)
    monkeypatch.setattr(torch.nn.Module, "state_dict", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr("hashlib.sha256", lambda *_: pytest.fail("hashed"), raising=True)
    from cpsae.extraction.provenance import is_model_known
    from cpsae.store.origin import read_provenance

    assert is_model_known(read_provenance(Folder(Path(chosen.store))), chosen)


def test_a_store_of_an_earlier_version_is_looked_at_once(begin, model) -> None:
    chosen = begin()
    (Path(chosen.store) / KEY).unlink()
    extract(chosen)
    assert json.loads((Path(chosen.store) / KEY).read_text())["corpus"] is None
    (Path(chosen.store) / KEY).unlink()
    change_weights(model)
    [difference] = refused(chosen)
    assert difference.startswith("model: ")


def test_a_damaged_record_is_one_line(begin) -> None:
    chosen = begin()
    (Path(chosen.store) / KEY).write_text("{")
    with pytest.raises(StoreError, match=r"its provenance.json is damaged, or of a later version"):
        extract(chosen)


def test_what_the_record_says(settings, tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, seed in (("a.txt", 0), ("b.txt", 1)):
        (folder / name).write_text(words(seed))
    (folder / "c.zip").write_bytes(b"PK\x03\x04")
    chosen = settings(**SMALL, dataset=str(folder))
    path = Path(extract(chosen).path)
    record = json.loads((path / KEY).read_text())["corpus"]
    [first, *_] = record["files"]
    assert first["name"] == "a.txt" and first["bytes"] == (folder / "a.txt").stat().st_size
    assert record["formats"]["a.txt"] == "text" and record["split"] == "train"
    assert record["left_out"] == [{"name": "c.zip", "reason": "an archive: unpack it"}]


def test_names_that_are_no_utf_8(begin, tmp_path, corpus) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl"))
    shutil.copy(corpus, odd)
    chosen = begin(dataset=str(folder))
    [record] = json.loads((Path(chosen.store) / KEY).read_text())["corpus"]["files"]
    assert record["name"] == "\\xff.jsonl"
    content = odd.read_bytes()
    odd.write_bytes(content.replace(b"w1", b"w2", 1))
    assert refused(chosen) == ["dataset.content: \\xff.jsonl changed"]
    odd.write_bytes(content)
    assert extract(chosen).vectors == 300


def test_a_corpus_that_is_gone(begin, corpus, tmp_path, monkeypatch) -> None:
    """However its path was written: one answer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds").mkdir()
    shutil.copy(corpus, "ds/a.jsonl")
    chosen = begin(dataset="ds")
    (tmp_path / "ds").rename("moved")
    assert extract(chosen).vectors == 300
    assert extract(chosen.model_copy(update={"dataset": "./ds"})).vectors == 300


def test_a_store_inside_its_own_corpus(settings, corpus, tmp_path) -> None:
    (tmp_path / "ds").mkdir()
    shutil.copy(corpus, tmp_path / "ds/a.jsonl")
    store = tmp_path / "ds/acts.zarr"
    with pytest.raises(SettingsError, match="lies inside the data set"):
        extract(settings(**SMALL, dataset=str(tmp_path / "ds"), store=str(store)))
    assert not store.exists()
