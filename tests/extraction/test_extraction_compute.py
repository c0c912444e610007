"""The loop over chunks: what it hands to the model, and what it does when a writer fails."""

import pytest
import torch

from cpsae.errors import DiskError, ModelError
from cpsae.extraction.compute import ChunkPipeline
from cpsae.extraction.extract import extract
from cpsae.models import TruncatedModel, find_source
from cpsae.store import StoreWriter, open_store


@pytest.fixture
def pipeline(settings, gemma) -> ChunkPipeline:
    """Over a store that is finished already, so that writing again changes nothing."""
    store = open_store(extract(settings(layer=0, vectors=2500)).path)
    model = TruncatedModel.load(find_source(str(gemma)), 0, torch.float32, torch.device("cpu"))
    return ChunkPipeline(model, store, StoreWriter(store.path, store.manifest))


def test_chunks_are_reported_once_each_in_order(pipeline) -> None:
    seen = []
    chunks = pipeline.writer.chunks
    pipeline.run(chunks, seen.append)
    assert seen == chunks


def test_a_writer_that_fails_ends_the_loop(pipeline, monkeypatch) -> None:
    written, write = [], pipeline.writer.write

    def fail(chunk, rows):
        if len(written) == 2:
            raise DiskError("full")
        written.append(chunk)
        return write(chunk, rows)

    monkeypatch.setattr(pipeline.writer, "write", fail)
    with pytest.raises(DiskError, match="full"):
        pipeline.run(pipeline.writer.chunks, lambda _: None)
    assert len(written) == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_no_memory_is_one_line(pipeline, monkeypatch, error) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(pipeline.model, "activations", refuse)
    with pytest.raises(ModelError, match="use a smaller --batch-contexts"):
        pipeline.run(pipeline.writer.chunks, lambda _: None)


def test_other_errors_of_the_model_are_not_hidden(pipeline, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(pipeline.model, "activations", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        pipeline.run(pipeline.writer.chunks, lambda _: None)
