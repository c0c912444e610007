"""What cannot work is refused before any work, or stops it with one line."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from tiny import chunks_of, content_of
from transformers import AutoModelForCausalLM

from cpsae.errors import BusyError, DiskError, ModelError, NonFiniteError, SettingsError
from cpsae.extraction import preflight
from cpsae.locks import writer_lock
from cpsae.memory import Room
from cpsae.models import TruncatedModel
from cpsae.stages.extract import extract
from cpsae.store import StoreWriter, open_store

Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_is_too_small(settings, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 10**6))
    chosen = settings(vectors=10_000)
    with pytest.raises(
        DiskError, match=r"takes .* more and .* stay free, the disk has 1.0 MB free; choose"
    ):
        extract(chosen)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_store_needs_room_for_the_rest_alone(settings, monkeypatch) -> None:
    chosen = settings(layer=0)
    whole = Path(extract(chosen).path)
    manifest = open_store(whole).manifest
    asked = []
    monkeypatch.setattr(
        "cpsae.extraction.plan.refuse_full_disk", lambda _path, wanted: asked.append(wanted)
    )
    monkeypatch.setattr(
        "cpsae.stages.extract._all_complete", lambda *_: False
    )  # the long way round
    extract(chosen)
    assert asked == [0] or asked[0] < preflight.store_bytes(manifest) / 20


def test_nothing_to_write_fits_a_full_disk(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    preflight.refuse_full_disk(tmp_path, 0)
    with pytest.raises(DiskError):
        preflight.refuse_full_disk(tmp_path, 1)


def test_memory_that_is_too_small(settings, monkeypatch, tmp_path) -> None:
    room = Room(1000, "memory.max of the control group /job")
    monkeypatch.setattr("cpsae.device.main_memory", lambda: room)
    text = (
        r"need about .* of memory in float32, cpu has 1.0 kB free under memory.max of the "
        "control group /job; .* raise that limit"
    )
    with pytest.raises(ModelError, match=text):
        extract(settings())
    assert list(tmp_path.iterdir()) == []


def test_with_the_tokens_settled_the_whole_model_needs_no_room(settings, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        "cpsae.extraction.plan.refuse_small_memory",
        lambda what, parameters, *_: asked.append((what, parameters)),
    )
    chosen = settings()
    path = Path(extract(chosen).path)
    StoreWriter(path, open_store(path).manifest).discard(["activations/c/0/0"])
    extract(chosen)
    (_, first), (what, again) = asked
    assert what == "the used blocks"
    assert again < first


def test_a_batch_that_does_not_fit(settings, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    chosen = settings(layer=0)
    monkeypatch.setattr("cpsae.extraction.prepare.self_test", refuse)
    with pytest.raises(ModelError, match="a batch does not fit the memory of cpu"):
        extract(chosen)


def test_a_batch_that_does_not_divide_a_chunk(settings, tmp_path) -> None:
    with pytest.raises(SettingsError, match="batch_contexts 3 does not divide the 64 contexts"):
        extract(settings(batch_contexts=3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number(settings, gemma, tmp_path, value) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(gemma, broken)
    model = AutoModelForCausalLM.from_pretrained(gemma)
    with torch.no_grad():
        model.model.layers[5].mlp.up_proj.weight[0, 0] = value
    model.save_pretrained(broken)
    with pytest.raises(NonFiniteError, match="layer 19 of .*: NaN or Inf at"):
        extract(settings(model=str(broken)))
    assert not (tmp_path / "acts.zarr").exists()


def test_a_nan_in_the_middle_names_chunk_and_layer(settings, monkeypatch) -> None:
    chosen = settings(layer=0)
    rows, calls = TruncatedModel.rows, []

    def spoilt(self, tokens):
        calls.append(len(tokens))
        found = rows(self, tokens)
        if sum(calls) > 150 and len(tokens) > 1:
            for hidden in found.values():
                hidden[0, 1, 0] = float("nan")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(TruncatedModel, "rows", spoilt)
        with pytest.raises(NonFiniteError, match=r"activations/c/\d/0: \d+ rows of layer 0 hold"):
            extract(chosen)
    path = settings().store
    assert not open_store(path, allow_partial=True).manifest.complete
    assert extract(chosen).computed_chunks > 0
    unbroken = extract(settings(layer=0, store=path + "2"))
    assert chunks_of(unbroken.path) == chunks_of(open_store(path).path)


@pytest.mark.parametrize(
    ("computed", "written", "remedy"),
    [
        ("float16", "bfloat16", r"--dtype bfloat16 \(or float32\) and --fresh"),
        ("float16", "float32", r"--dtype bfloat16 \(or float32\) and --fresh"),
        ("float16", "float16", r"--dtype bfloat16 \(or float32\) and --fresh"),
        ("float32", "float16", "--store-dtype bfloat16, with --fresh"),
    ],
)
def test_where_float16_ends(settings, monkeypatch, computed, written, remedy) -> None:
    chosen = settings(layer=0, dtype=computed, store_dtype=written)
    rows = TruncatedModel.rows

    def beyond(self, tokens):
        found = rows(self, tokens)
        if len(tokens) > 1:
            for hidden in found.values():
                hidden[0, 1, 0] = 70_000.0  # an infinity in float16
        return found

    with monkeypatch.context() as patch:
        patch.setattr(TruncatedModel, "rows", beyond)
        with pytest.raises(NonFiniteError, match=f"float16 ends at 65504: .*{remedy}"):
            extract(chosen)
    other = {"dtype": "bfloat16"} if computed == "float16" else {"store_dtype": "bfloat16"}
    again = {"layer": 0, "dtype": computed, "store_dtype": written, **other}
    assert extract(settings(**again), fresh=True).computed_chunks > 0  # the advice is enough


@pytest.mark.parametrize("syncs", [5, 50], ids=["among the documents", "among the chunks"])
def test_a_disk_that_fills_up_in_the_middle(settings, monkeypatch, syncs) -> None:
    chosen = settings(layer=0)
    synced, fsync = [], os.fsync

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > syncs:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match="the disk is full; what is committed stays"):
            extract(chosen)
    path = chosen.store
    assert not [name for name in content_of(Path(path)) if name.endswith(".tmp")]
    extract(chosen)
    unbroken = extract(settings(layer=0, store=path + "2"))
    assert chunks_of(unbroken.path) == chunks_of(open_store(path).path)


def test_a_second_process_is_refused(settings) -> None:
    chosen = settings(layer=0)
    path = Path(extract(settings(layer=0, store=chosen.store + "2")).path)
    with writer_lock(path, "store"):
        (path / "activations/c/0/0").unlink()
        (path / "zarr.json").write_text(
            (path / "zarr.json").read_text().replace('"complete": true', '"complete": false')
        )
        with pytest.raises(BusyError, match=r"another process \(pid \d+\) is writing this store"):
            extract(settings(layer=0, store=str(path)))


@pytest.mark.parametrize("layers", [0, [0, 2]])
def test_a_context_that_does_not_run_is_refused_before_text_is_read(
    settings, monkeypatch, tmp_path, layers
) -> None:
    """MPT builds its biases for max_seq_len tokens: no setting of the usual name says so."""
    from transformers import AutoTokenizer, MptConfig, MptForCausalLM

    chosen = settings(layer=layers)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    folder = tmp_path / "mpt"
    sizes = {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": chosen.tokens - 1}
    MptForCausalLM(MptConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    read = []
    monkeypatch.setattr("cpsae.extraction.lead.pack_corpus", lambda *_: read.append(1))
    with pytest.raises(ModelError, match=f"a context of {chosen.tokens} tokens failed .*--tokens"):
        extract(settings(layer=layers, model=str(folder)))
    assert not read and [path.name for path in tmp_path.iterdir()] == ["mpt"]
