"""The loop over chunks: what it hands to the model, and what it does when a writer fails."""

import pytest
import torch

from cpsae.config.extraction import Site
from cpsae.errors import DiskError, ModelError
from cpsae.extraction.compute import ChunkPipeline
from cpsae.models import TruncatedModel, find_source
from cpsae.stages.extract import extract
from cpsae.store import StoreWriter, open_store

SITE = Site(0)


def pieces_of(pipeline):
    return [{SITE: chunk} for chunk in pipeline.writers[SITE].chunks]


@pytest.fixture
def pipeline(settings, gemma) -> ChunkPipeline:
    """Over a store that is finished already, so that writing again changes nothing."""
    store = open_store(extract(settings(layer=0, vectors=2500)).path)
    model = TruncatedModel.load(find_source(str(gemma)), 0, torch.float32, torch.device("cpu"))
    return ChunkPipeline(model, store, {SITE: StoreWriter(store.bucket, store.manifest)})


def test_chunks_are_reported_once_each_in_order(pipeline) -> None:
    seen = []
    pipeline.run(pieces_of(pipeline), seen.append)
    assert seen == pieces_of(pipeline)


def test_a_writer_that_fails_ends_the_loop(pipeline, monkeypatch) -> None:
    written, writer = [], pipeline.writers[SITE]
    write = writer.write

    def fail(chunk, rows):
        if len(written) == 2:
            raise DiskError("full")
        written.append(chunk)
        return write(chunk, rows)

    monkeypatch.setattr(writer, "write", fail)
    with pytest.raises(DiskError, match="full"):
        pipeline.run(pieces_of(pipeline), lambda _: None)
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

    monkeypatch.setattr(pipeline.model, "rows", refuse)
    with pytest.raises(ModelError, match="use a smaller --batch-contexts"):
        pipeline.run(pieces_of(pipeline), lambda _: None)


def test_other_errors_of_the_model_are_not_hidden(pipeline, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(pipeline.model, "rows", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        pipeline.run(pieces_of(pipeline), lambda _: None)
