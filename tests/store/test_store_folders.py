"""From paths to stores: folders of stores, URLs, links, and stores that older releases wrote."""

import json
import shutil
from pathlib import Path

import building
import numpy as np
import pytest

from cpsae.errors import StoreError
from cpsae.store import is_store, open_store, stores_in, verify_store, write_store
from cpsae.store.folders import site_folder

KEPT = Path(__file__).parent.parent / "data/stores"


@pytest.fixture
def several(tmp_path):
    folder = tmp_path / "acts.zarr"
    for layer, point in [(12, "resid_post"), (5, "resid_post"), (5, "attn_out"), (5, "resid_pre")]:
        building.build(folder / site_folder(layer, point))
    (folder / "notes").mkdir()
    (folder / "7.mlp_out.zarr").mkdir()  # begun, and no store yet
    return folder


def test_stores_come_by_layer_and_place_in_the_block(several):
    assert [path.name for path in stores_in(several)] == [
        "5.resid_pre.zarr",
        "5.attn_out.zarr",
        "5.resid_post.zarr",
        "12.resid_post.zarr",
    ]
    assert not is_store(several)
    assert all(is_store(path) for path in stores_in(several))
    assert stores_in(several / "5.resid_pre.zarr") == []
    assert stores_in(several / "absent") == []


@pytest.mark.parametrize("use", [open_store, verify_store])
def test_a_folder_of_stores_is_no_store_and_says_what_is_in_it(several, use):
    with pytest.raises(StoreError, match=r"is a folder of stores; name one of them: 5\.resid_pre"):
        use(several)


@pytest.mark.parametrize("url", ["ftp://host/a.zarr", "hf://b/a.zarr", "gs:/b", "s3://"])
def test_a_url_makes_no_folder(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    rows = np.ones((10, 3), np.float32)
    for use in (open_store, verify_store, lambda path: write_store(path, rows)):
        with pytest.raises(StoreError, match="expected a local folder, s3://bucket/prefix, gs://"):
            use(url)
    assert list(tmp_path.iterdir()) == []


def test_a_dangling_link_is_a_place_to_write_to(tmp_path):
    (tmp_path / "link.zarr").symlink_to(tmp_path / "large disk/acts.zarr")
    write_store(tmp_path / "link.zarr", np.ones((10, 3), np.float32))
    assert (tmp_path / "link.zarr").is_symlink()
    assert open_store(tmp_path / "large disk/acts.zarr").training.vectors == 9


@pytest.mark.parametrize("name", ["arrays", "extracted"])
def test_stores_of_format_1_are_one_line(name, tmp_path):
    path = shutil.copytree(KEPT / "format-1" / name, tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="has format version 1, which cpsae 0.1 wrote") as caught:
        open_store(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["arrays", "extracted"])
def test_stores_of_format_2_are_read(name):
    path = KEPT / "format-2" / name
    store = open_store(path)
    assert verify_store(path).problems == []
    rows = np.concatenate(list(store.training.batches(100))).astype(np.float64)
    np.testing.assert_allclose(store.training.mean, rows.mean(0), atol=1e-12)
    assert store.training.vectors == store.manifest.vectors


@pytest.mark.parametrize("name", ["arrays", "extracted"])
def test_both_formats_have_the_same_rows_tokens_and_identity(name):
    old, new = (KEPT / f"format-{number}" / name for number in (1, 2))
    files = {
        file.relative_to(old)
        for file in old.rglob("*")
        if file.is_file() and file.name != "zarr.json" and "statistics" not in file.parts
    }
    assert files
    for file in files:
        assert (old / file).read_bytes() == (new / file).read_bytes(), file
    manifests = [
        json.loads((path / "zarr.json").read_text())["attributes"]["cpsae"] for path in (old, new)
    ]
    for manifest in manifests:
        del manifest["format_version"], manifest["software"], manifest["device"]
    assert manifests[0] == manifests[1]
    for key in ("activations/zarr.json", "evaluation/activations/zarr.json"):
        assert json.loads((old / key).read_text()) == json.loads((new / key).read_text())
