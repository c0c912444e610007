"""What a finished store holds: the rows of the whole model, exactly as many as asked for."""

import numpy as np
import pytest
import torch
from tiny import BLOCKS, LAYER, TOKENS, WIDTH
from transformers import AutoModelForCausalLM

from cpsae.stages.extract import extract
from cpsae.store import open_store

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def whole_model_rows(folder, part, dtype: str, batch: int, layer: int = LAYER) -> torch.Tensor:
    """hidden_states[layer + 1] (contexts, T, d) of the whole model, in batches that end with each
    chunk, as the extraction's do."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[dtype], attn_implementation="eager"
    ).eval()
    found = []
    with torch.no_grad():
        for chunk in part.part.chunks():
            tokens = torch.from_numpy(part.tokens(chunk.contexts)).long()
            for ids in tokens.split(batch):
                states = model(input_ids=ids, output_hidden_states=True, use_cache=False)
                found.append(states.hidden_states[layer + 1])
    return torch.cat(found)


def stored_rows(part) -> torch.Tensor:
    rows = np.concatenate([part.rows(chunk) for chunk in part.chunks])
    if rows.dtype == np.float32:
        return torch.from_numpy(rows)
    return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)


@pytest.mark.parametrize("keep_bos", [False, True])
def test_rows_in_float32_are_the_whole_models(settings, gemma, keep_bos) -> None:
    done = extract(settings(dtype="float32", store_dtype="float32", keep_bos=keep_bos))
    store = open_store(done.path)
    first = 0 if keep_bos else 1
    for part, vectors in ((store.training, 3000), (store.evaluation, 300)):
        expected = whole_model_rows(gemma, part, "float32", batch=64)
        found = stored_rows(part)
        assert found.shape == (vectors, WIDTH)
        largest = expected.abs().max()
        for row in range(vectors):
            context, position = part.origin(row)
            assert (context, position) == (row // (TOKENS - first), row % (TOKENS - first) + first)
        rows = expected[:, first:].reshape(-1, WIDTH)[:vectors]
        assert (found - rows).abs().max() <= 1e-5 * largest


@pytest.mark.parametrize("batch", [8, 64])
def test_rows_in_bfloat16_are_bit_equal_at_the_same_batch_shape(settings, gemma, batch) -> None:
    done = extract(settings(dtype="bfloat16", batch_contexts=batch, vectors=1500))
    store = open_store(done.path)
    for part in (store.training, store.evaluation):
        rows = whole_model_rows(gemma, part, "bfloat16", batch)[:, 1:].reshape(-1, WIDTH)
        assert torch.equal(stored_rows(part), rows[: part.vectors])


def test_the_last_block_gives_its_raw_output(settings, gemma) -> None:
    """transformers' own last entry comes after the final norm."""
    done = extract(settings(layer=BLOCKS - 1, store_dtype="float32", vectors=100))
    part = open_store(done.path).training
    normed = whole_model_rows(gemma, part, "float32", 64, BLOCKS - 1)[:, 1:].reshape(-1, WIDTH)
    model = AutoModelForCausalLM.from_pretrained(gemma, attn_implementation="eager")
    with torch.no_grad():
        again = model.model.norm(stored_rows(part))
    assert torch.allclose(again, normed[:100], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(stored_rows(part), normed[:100], rtol=0.1)


@pytest.mark.parametrize("vectors", [1, 959, 960, 961])
def test_vectors_are_exact(settings, vectors) -> None:
    done = extract(settings(vectors=vectors, layer=0))
    store = open_store(done.path)
    assert store.training.vectors == done.vectors == vectors
    assert store.evaluation is not None
    assert store.evaluation.vectors == done.evaluation_vectors == max(1, vectors // 10)
    assert sum(chunk.n_rows for chunk in store.training.chunks) == vectors


def test_contexts_begin_with_bos_and_are_shuffled(settings) -> None:
    store = open_store(extract(settings(layer=0)).path)
    tokens = store.training.tokens(range(store.training.part.n_contexts))
    assert (tokens[:, 0] == 2).all()
    other = open_store(extract(settings(layer=0, seed=1, store=settings().store + "1")).path)
    again = other.training.tokens(range(len(tokens)))
    assert not np.array_equal(tokens, again)
    assert sorted(map(tuple, tokens.tolist())) == sorted(map(tuple, again.tolist()))


def test_the_bytes_do_not_depend_on_the_store_dtype_beyond_rounding(settings) -> None:
    exact = open_store(extract(settings(store_dtype="float32", layer=3)).path)
    rounded = open_store(extract(settings(layer=3, store=settings().store + "2")).path)
    assert torch.equal(
        stored_rows(rounded.training), stored_rows(exact.training).to(torch.bfloat16)
    )


def test_a_folder_of_sources_is_a_corpus(settings, sources) -> None:
    done = extract(settings(dataset=str(sources), vectors=500, layer=0))
    manifest = open_store(done.path).manifest
    assert manifest.identity["dataset.files"] == 60
