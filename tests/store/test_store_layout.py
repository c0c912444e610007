import building
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cpsae.held_out import held_out_rows
from cpsae.store import Manifest
from cpsae.store.layout import contexts_per_chunk, rows_per_chunk_of_arrays

MIB = 2**20


@pytest.mark.parametrize(
    ("rows", "d", "dtype", "contexts"),
    [
        (127, 2304, "bfloat16", 64),  # the paper's: 37 MB
        (127, 2304, "float32", 32),
        (127, 576, "float32", 64),
        (1023, 4096, "bfloat16", 8),
        (100_000, 4096, "float32", 1),  # one context alone is over 64 MiB
    ],
)
def test_chunks_hold_a_power_of_two_of_contexts_within_64_mib(rows, d, dtype, contexts):
    assert contexts_per_chunk(rows, d, dtype) == contexts


@given(st.integers(1, 5000), st.integers(1, 20_000), st.sampled_from(["bfloat16", "float32"]))
def test_no_larger_power_of_two_fits(rows, d, dtype):
    contexts = contexts_per_chunk(rows, d, dtype)
    context_bytes = rows * d * {"bfloat16": 2, "float32": 4}[dtype]
    assert contexts & (contexts - 1) == 0
    assert 1 <= contexts <= 64
    assert contexts == 1 or contexts * context_bytes <= 64 * MIB
    assert contexts == 64 or 2 * contexts * context_bytes > 64 * MIB


def test_ten_million_vectors_of_the_paper_make_1231_files():
    manifest = building.manifest(
        "bfloat16", vectors=10_000_000, evaluation_vectors=0, d=2304, rows_per_chunk=64 * 127
    )
    (part,) = manifest.parts()
    assert part.n_chunks == 1231
    assert next(part.chunks()).file_bytes == 64 * 127 * 2304 * 2 + 4


@given(st.integers(1, 3000), st.integers(0, 300), st.integers(1, 8), st.integers(1, 8))
def test_chunks_cover_every_row_and_context_once(vectors, held_out, rows, contexts):
    manifest = building.manifest(
        vectors=vectors,
        evaluation_vectors=held_out,
        rows_per_chunk=rows * contexts,
        contexts={"tokens": rows + 1, "rows": rows, "first_position": 1, "batch_contexts": 1},
    )
    assert [part.vectors for part in manifest.parts()] == [held_out, vectors][held_out == 0 :]
    for part in manifest.parts():
        chunks = list(part.chunks())
        ranges = [range(c.first_row, c.first_row + c.n_rows) for c in chunks]
        assert [row for some in ranges for row in some] == list(range(part.vectors))
        assert [n for c in chunks for n in c.contexts] == list(range(part.n_contexts))
        assert part.n_contexts == -(-part.vectors // rows)


@pytest.mark.parametrize("d", [1, 576, 2304, 50_000_000])
def test_chunks_of_arrays_stay_within_64_mib(d):
    rows = rows_per_chunk_of_arrays(d, "bfloat16")
    assert rows & (rows - 1) == 0
    assert rows == 1 or rows * d * 2 <= 64 * MIB
    assert rows <= 8192


@pytest.mark.parametrize(
    ("vectors", "held_out"),
    [(10, 1), (1000, 100), (200_000, 20_000), (1_000_000, 20_000), (10_000_000, 100_000)]
    + [(50_000_000, 200_000)],
)
def test_held_out_share(vectors, held_out):
    assert held_out_rows(vectors) == held_out


def test_manifest_survives_json():
    manifest = building.manifest()
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_zarr_sees_the_arrays_that_the_layout_names(finished_stores):
    group = zarr.open_group(finished_stores["float32"], mode="r")
    expected = {
        "activations": (70, 8),
        "tokens": (18, 5),
        "statistics/norms": (70,),
        "statistics/summary": (5, 10),
        "evaluation/activations": (20, 8),
        "evaluation/tokens": (5, 5),
    }
    assert {name: group[name].shape for name in expected} == expected
    assert np.isnan(group["activations"].fill_value)


def test_parts_and_chunks_compare_and_hash_without_their_manifest():
    one, other = building.manifest(), building.manifest(description="elsewhere")
    assert one.chunks() == other.chunks()
    assert len({*one.chunks(), *other.chunks()}) == len(one.chunks()) == 7
    assert {part: part.name for part in one.parts()} == {part: part.name for part in other.parts()}
