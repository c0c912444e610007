"""A store continues with the settings it was begun with, and with no others."""

import shutil
from pathlib import Path

import pytest
from tiny import content_of

from cpsae.errors import DifferentSettingsError, StoreError
from cpsae.extraction import plan as module
from cpsae.stages.extract import extract
from cpsae.store import write_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest

SMALL = {"vectors": 300, "layer": 0}


@pytest.fixture
def begun(settings):
    """The settings and the store of a small finished extraction."""
    chosen = settings(**SMALL)
    return chosen, Path(extract(chosen).path)


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"layer": 1}, ["layer: 0, not 1"]),
        ({"tokens": 8}, ["tokens: 16, not 8"]),
        ({"vectors": 200}, ["vectors: 300, not 200"]),
        ({"seed": 7}, ["seed: 0, not 7"]),
        ({"keep_bos": True}, ["keep_bos: False, not True"]),
        ({"store_dtype": "float32"}, ["store_dtype: 'bfloat16', not 'float32'"]),
        ({"dtype": "bfloat16"}, ["dtype: 'float32', not 'bfloat16'"]),
        ({"attention": "sdpa"}, ["attention: 'eager', not 'sdpa'"]),
        ({"batch_contexts": 4}, ["batch_contexts: "]),
        ({"device": "cuda"}, ["device: 'cpu', not 'cuda'"]),
        ({"text_field": "body"}, ["text_field: 'text', not 'body'"]),
        ({"layer": 2, "seed": 3}, ["layer: 0, not 2", "seed: 0, not 3"]),
        ({"dataset": "some/corpus"}, ["dataset: None, not 'some/corpus'", "dataset.files: 1, not"]),
    ],
)
def test_other_settings_are_listed_and_nothing_changes(begun, settings, changes, listed) -> None:
    _, path = begun
    before = content_of(path)
    with pytest.raises(DifferentSettingsError) as raised:
        extract(settings(**{**SMALL, **changes}))
    for difference in listed:
        assert any(text.startswith(difference) for text in raised.value.differences)
        assert difference in str(raised.value)
    assert "\n" not in str(raised.value)
    assert content_of(path) == before


def test_another_corpus_is_another_identity(begun, settings, sources) -> None:
    _, path = begun
    before = content_of(path)
    with pytest.raises(DifferentSettingsError, match=r"dataset.files: 1, not 60"):
        extract(settings(**SMALL, dataset=str(sources)))
    assert content_of(path) == before


def test_other_weights_are_another_model(begun, settings, gemma, tmp_path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    _, path = begun
    before = content_of(path)
    other = tmp_path / "other"
    shutil.copytree(gemma, other)
    model = AutoModelForCausalLM.from_pretrained(gemma)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    model.save_pretrained(other)
    with pytest.raises(DifferentSettingsError, match="model: "):
        extract(settings(**SMALL, model=str(other)))
    assert content_of(path) == before


def test_paths_do_not_count(begun, settings, gemma, corpus, tmp_path) -> None:
    chosen, path = begun
    moved = {"model": tmp_path / "model", "dataset": tmp_path / "text.d" / corpus.name}
    moved["dataset"].parent.mkdir()
    shutil.copytree(gemma, moved["model"])
    shutil.copy(corpus, moved["dataset"])
    path.rename(tmp_path / "elsewhere.zarr")
    places = {key: str(value) for key, value in moved.items()}
    done = extract(settings(**SMALL, **places, store=str(tmp_path / "elsewhere.zarr")))
    assert done.computed_chunks == 0
    assert read_manifest(Folder(Path(done.path))).model.id == chosen.model


def test_a_complete_store_says_so_without_the_model(begun, monkeypatch) -> None:
    chosen, path = begun
    before = content_of(path)
    heard = []

    def fail(*_: object) -> None:
        raise AssertionError("a complete store needs no model")

    monkeypatch.setattr(module, "find_source", fail)
    done = extract(chosen, heard.append)
    assert done.computed_chunks == 0
    assert [note.text for note in heard] == [f"{path} is complete"]
    assert content_of(path) == before


def test_a_complete_store_that_lost_a_chunk_is_no_complete_store(begun) -> None:
    chosen, path = begun
    (path / "activations/c/0/0").unlink()
    with pytest.raises(StoreError, match=r"activations/c/0/0: missing; run `cpsae verify"):
        extract(chosen)


@pytest.mark.usefixtures("begun")
def test_another_revision_of_the_same_name_is_looked_at(settings, monkeypatch) -> None:
    looked = []

    def find(*arguments: object) -> None:
        looked.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "find_source", find)
    with pytest.raises(KeyboardInterrupt):
        extract(settings(**SMALL, revision="main"))
    assert looked


def test_a_store_made_from_arrays_is_not_continued(settings) -> None:
    import numpy as np

    chosen = settings(**SMALL)
    write_store(chosen.store, np.ones((40, 8), np.float32))
    before = content_of(Path(chosen.store))
    with pytest.raises(StoreError, match="was made from arrays"):
        extract(chosen)
    assert content_of(Path(chosen.store)) == before


def test_fresh_renames_aside_only_what_is_a_store_and_after_all_checks(begun, settings) -> None:
    chosen, path = begun
    before = content_of(path)
    with pytest.raises(Exception, match="26 blocks"):
        extract(settings(**{**SMALL, "layer": 26}), fresh=True)
    with pytest.raises(Exception, match="no such file or folder"):
        extract(settings(**SMALL, dataset="/no/such/corpus.txt"), fresh=True)
    assert content_of(path) == before
    done = extract(settings(**{**SMALL, "layer": 1}), fresh=True)
    assert done.computed_chunks == 2
    assert content_of(path.with_name("acts.zarr.old-1")) == before


def test_fresh_leaves_a_folder_of_other_things_alone(settings) -> None:
    chosen = settings(**SMALL)
    path = Path(chosen.store)
    path.mkdir()
    (path / "thesis.txt").write_text("three years of work")
    with pytest.raises(StoreError, match="is no store"):
        extract(chosen, fresh=True)
    assert (path / "thesis.txt").exists()


def test_a_worker_that_reads_no_text_needs_no_corpus(settings, corpus, tmp_path) -> None:
    """Only the leading worker reads it: the others may be on machines that lack it."""
    import threading

    from cpsae.workers import Worker

    copy = tmp_path / "text.d" / corpus.name
    copy.parent.mkdir()
    shutil.copy(corpus, copy)
    here = settings(layer=0, dataset=str(copy))
    elsewhere = here.model_copy(update={"dataset": str(tmp_path / "no/such/corpus.jsonl")})
    results = {}
    follower = threading.Thread(
        target=lambda: results.update(follower=extract(elsewhere, worker=Worker(1, 2, 1)))
    )
    follower.start()
    results["leader"] = extract(here, worker=Worker(0, 2, 0))
    follower.join()
    assert results["follower"].computed_chunks >= 1


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub: a data set whose branch moves, read at the commit that is asked."""
    import datasets
    import huggingface_hub
    from tiny import texts

    read: list[tuple[str, str]] = []
    state = {"main": "c" * 40, "read": read}

    def load(name, **options):
        read.append((name, options["revision"]))
        return ({"text": text} for text in texts())

    class Api:
        def dataset_info(self, _name, revision=None):
            return type("Info", (), {"sha": state["main"] if revision is None else revision * 40})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return state


def test_a_data_set_on_the_hub_is_pinned_to_its_commit(settings, hub) -> None:
    chosen = settings(**SMALL, dataset="some/corpus")
    path = Path(extract(chosen).path)
    manifest = read_manifest(Folder(path))
    assert manifest.dataset.revision == "c" * 40
    assert hub["read"] == [("some/corpus", "c" * 40)]
    from cpsae.store.metadata import write_manifest

    unmarked = manifest.model_copy(update={"tokens_complete": False, "complete": False})
    write_manifest(Folder(path), unmarked)
    hub["main"] = "d" * 40  # the branch has moved
    extract(chosen)
    assert hub["read"][-1] == ("some/corpus", "c" * 40)


def test_another_revision_of_a_data_set_is_listed_as_its_option_is_called(settings, hub) -> None:
    extract(settings(**SMALL, dataset="some/corpus"))
    with pytest.raises(DifferentSettingsError) as caught:
        extract(settings(**SMALL, dataset="some/corpus", dataset_revision="e"))
    assert caught.value.differences == ["dataset_revision: None, not 'e'"]
    assert len(hub["read"]) == 1
