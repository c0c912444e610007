"""Rows in other programs' files: which they are, of which place, and what is refused."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from row_files import HOOK, D, T, contexts, write_cached
from safetensors.torch import save_file

from cpsae.errors import SourceError
from cpsae.interop.row_sources import find_rows
from cpsae.interop.rows import Rows

ROWS = contexts().reshape(-1, D)


def all_of(rows):
    return rows[np.arange(len(rows))]


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    positions=st.integers(1, 4),
    dropped=st.integers(0, 3),
    data=st.data(),
)
def test_any_rows_of_any_blocks(sizes, positions, dropped, data) -> None:
    """As of one array."""
    dropped = min(dropped, positions - 1)
    whole = np.arange(sum(sizes) * positions * 2.0).reshape(-1, 2)
    blocks = np.split(whole, np.cumsum(sizes)[:-1] * positions)
    expected = whole.reshape(-1, positions, 2)[:, dropped:].reshape(-1, 2)
    rows = Rows(blocks, positions, dropped)
    assert rows.shape == expected.shape and len(rows) == len(expected)
    first = data.draw(st.integers(0, len(expected) - 1))
    count = data.draw(st.integers(0, len(expected) - first))
    part = rows.part(first, count)
    wanted = data.draw(st.lists(st.integers(0, max(0, count - 1)), max_size=9 if count else 0))
    numbers = np.array(wanted, int)
    np.testing.assert_array_equal(part[numbers], expected[first : first + count][numbers])
    if wanted:
        np.testing.assert_array_equal(part[wanted[0]], expected[first + wanted[0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_npy(tmp_path, dtype) -> None:
    np.save(tmp_path / "rows.npy", ROWS.astype(dtype))
    found = find_rows(tmp_path / "rows.npy")
    assert isinstance(found.rows.blocks[0].base, np.memmap) and found.rows.positions == 1
    np.testing.assert_array_equal(all_of(found.rows), ROWS.astype(dtype))


def test_bfloat16_in_npy(tmp_path) -> None:
    """numpy saves it without its name."""
    np.save(tmp_path / "rows.npy", ROWS.astype(ml_dtypes.bfloat16))
    found = find_rows(tmp_path / "rows.npy")
    assert found.rows.dtype == ml_dtypes.bfloat16
    assert found.notes[0].endswith("values of two nameless bytes are taken for bfloat16")
    np.testing.assert_array_equal(all_of(found.rows), ROWS.astype(ml_dtypes.bfloat16))


def test_contexts_in_npy_and_several_files(tmp_path) -> None:
    for number, some in enumerate(np.array_split(contexts(), 4)):
        np.save(tmp_path / f"{number}.npy", some)
    found = find_rows(tmp_path)
    assert (found.rows.positions, len(found.files)) == (T, 4)
    np.testing.assert_array_equal(all_of(found.rows), ROWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_safetensors(tmp_path, dtype) -> None:
    tensor = torch.from_numpy(ROWS).to(dtype)
    save_file({HOOK: tensor, "norms": tensor.norm(dim=1)}, tmp_path / "a.safetensors")
    found = find_rows(tmp_path / "a.safetensors")
    assert found.hook_name == HOOK
    read = all_of(found.rows).astype(np.float64)
    np.testing.assert_array_equal(read, tensor.double().numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("tokens", [True, False])
def test_cached_activations_of_sae_lens(tmp_path, dtype, tokens) -> None:
    made = contexts().astype(dtype)
    found = find_rows(write_cached(tmp_path / "cached", made, tokens=tokens))
    assert (found.hook_name, found.rows.positions, found.rows.dtype) == (HOOK, T, dtype)
    assert bool(found.notes) is tokens
    np.testing.assert_array_equal(all_of(found.rows), made.reshape(-1, D))
    assert all(not block.flags.owndata for block in found.rows.blocks)


def test_what_the_runner_was_asked_for(tmp_path) -> None:
    folder = write_cached(tmp_path / "cached", contexts())
    asked = {"model_name": "gemma-2-2b", "hook_name": HOOK}
    (folder / "cache_activations_runner_cfg.json").write_text(json.dumps(asked))
    assert find_rows(folder).model == "gemma-2-2b"


def written(tmp_path, name):
    """A source that is wrong in the way that its name says."""
    path = tmp_path / name
    folder = tmp_path / "f"
    folder.mkdir()
    match name:
        case "objects.npy":
            np.save(path, np.array([print, 1], dtype=object))
        case "cut.npy":
            np.save(path, ROWS)
            path.write_bytes(path.read_bytes()[:500])
        case "ints.npy":
            np.save(path, np.arange(20).reshape(5, 4))
        case "flat.npy":
            np.save(path, np.zeros(9))
        case "empty.npy":
            np.save(path, np.zeros((0, 4)))
        case "two.safetensors":
            save_file({"a": torch.zeros(3, 2), "b": torch.zeros(4, 2)}, path)
        case "no.safetensors":
            path.write_bytes(b"x")
        case "mixed":
            np.save(folder / "a.npy", ROWS)
            np.save(folder / "b.npy", ROWS[:, :3])
            return folder
        case "rows.pt":
            torch.save(torch.zeros(3, 2), path)
        case "cached-cut":
            write_cached(tmp_path / "c", contexts())
            file = tmp_path / "c/data-00001-of-00003.arrow"
            file.write_bytes(file.read_bytes()[:300])
            return tmp_path / "c"
        case "cached-less":
            write_cached(tmp_path / "c", contexts())
            (tmp_path / "c/data-00001-of-00003.arrow").unlink()
            return tmp_path / "c"
        case "cached-out":
            (folder / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
            return folder
        case "cached-no-list":
            (folder / "state.json").write_text('{"_data_files": 3}')
            return folder
        case "cached-offsets":
            write_cached(tmp_path / "c", contexts(), tokens=False)
            file = tmp_path / "c/data-00001-of-00003.arrow"
            content, begin = file.read_bytes(), np.arange(21, dtype="<i4") * T
            assert content.count(begin.tobytes()) == 1, "where each context begins"
            whole = np.append(begin[:-1], np.int32(2**30))
            file.write_bytes(content.replace(begin.tobytes(), whole.tobytes()))
            return tmp_path / "c"
        case "cached-odd":
            (folder / "state.json").write_text("[]")
            return folder
        case "text.txt":
            path.write_text("hello")
        case "folder":
            return folder
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("objects.npy", "objects.npy: cannot be read"),
        ("cut.npy", "cut.npy: cannot be read"),
        ("ints.npy", "expected floats, got int64"),
        ("flat.npy", r"expected rows \(vectors, d\) or contexts .*got shape \(9,\)"),
        ("empty.npy", "holds no rows"),
        (
            "two.safetensors",
            r"holds 2 tensors that may be rows; name one with --tensor: a \(3",
        ),
        ("no.safetensors", "no.safetensors: cannot be read"),
        ("mixed", r"its files do not go with each other \(float32 \(300, 12\), float32 \(300, 3\)"),
        ("rows.pt", "rows.pt: is a pickle, and cpsae opens none.*python -c"),
        ("cached-cut", "data-00001-of-00003.arrow: cannot be read"),
        ("cached-less", "lacks data-00001-of-00003.arrow; copy it whole"),
        ("cached-out", "lacks x.arrow; copy it whole"),
        ("cached-no-list", "lacks data; copy it whole"),
        ("cached-offsets", "data-00001-of-00003.arrow: cannot be read .*offset"),
        ("cached-odd", "state.json: expected a JSON object"),
        ("text.txt", "expected a .npy or .safetensors file, a folder of such files, or the folder"),
        ("folder", "expected a .npy or .safetensors file"),
        ("none.npy", "no such file or folder"),
    ],
)
def test_refusals(tmp_path, name, text) -> None:
    with pytest.raises(SourceError, match=text):
        find_rows(written(tmp_path, name))


def test_names_that_are_not_there(tmp_path) -> None:
    save_file({"a": torch.zeros(3, 2)}, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", ROWS)
    folder = write_cached(tmp_path / "c", contexts())
    for source, text in [
        (tmp_path / "a.safetensors", r"\(named b\): cannot be read"),
        (tmp_path / "a.npy", "a .npy file holds one array; leave --tensor out"),
        (folder, "has no column b; there are blocks.19.hook_resid_post, token_ids"),
    ]:
        with pytest.raises(SourceError, match=text):
            find_rows(source, "b")
    with pytest.raises(SourceError, match="token_ids is no column of activations"):
        find_rows(folder, "token_ids")
