import shutil

import building
import pytest


@pytest.fixture(scope="session")
def finished_stores(tmp_path_factory):
    """A complete store in each data type, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    return {
        dtype: building.build(folder / f"{dtype}.zarr", dtype)
        for dtype in ("bfloat16", "float16", "float32")
    }


@pytest.fixture
def store(finished_stores, tmp_path):
    """The path of a complete float32 store of one's own, to be damaged."""
    return shutil.copytree(finished_stores["float32"], tmp_path / "acts.zarr")
