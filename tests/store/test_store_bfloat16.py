import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr

from cpsae.store.bfloat16 import BFloat16

EVERY_BIT_PATTERN = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # zarr compares with NaN
def test_every_value_survives_zarr_and_tensorstore_reads_it(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(1 << 16,), chunks=(1000,), dtype=EVERY_BIT_PATTERN.dtype
    )
    array[:] = EVERY_BIT_PATTERN
    again = np.asarray(zarr.open_array(tmp_path / "a.zarr", mode="r")[:])
    assert again.dtype == EVERY_BIT_PATTERN.dtype
    np.testing.assert_array_equal(again.view(np.uint16), EVERY_BIT_PATTERN.view(np.uint16))
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "a.zarr")}}
    other = tensorstore.open(spec, read=True).result().read().result()
    np.testing.assert_array_equal(other.view(np.uint16), EVERY_BIT_PATTERN.view(np.uint16))


@pytest.mark.parametrize("value", [0.0, -1.5, np.nan, np.inf, -np.inf])
def test_fill_value_survives_json(tmp_path, value):
    zarr.create_array(tmp_path / "a", shape=(3,), dtype=BFloat16(), fill_value=value)
    read = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(np.asarray(read[:]).astype(np.float32), [value] * 3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16"])
def test_other_types_stay_what_they_are(tmp_path, dtype):
    array = zarr.create_array(tmp_path / "a", shape=(3,), dtype=dtype)
    assert array.dtype == np.dtype(dtype)


def test_plain_zarr_reads_a_store_through_its_group(finished_stores):
    """No import of cpsae: opening a member of a group makes zarr load the entry point of the
    installed package, and that brings the type along."""
    path = finished_stores["bfloat16"]
    code = (
        f"import zarr; a = zarr.open_group({str(path)!r}, mode='r')['activations']; "
        "print(a.dtype, a[:].shape)"
    )
    assert run(code) == "bfloat16 (70, 8)"


def test_an_array_by_itself_is_read_after_importing_the_store(finished_stores):
    path = finished_stores["bfloat16"] / "activations"
    code = f"import cpsae.store, zarr; print(zarr.open_array({str(path)!r}, mode='r')[:].dtype)"
    assert run(code) == "bfloat16"


def test_importing_the_store_imports_no_torch():
    assert run("import sys, cpsae.store; print('torch' in sys.modules)") == "False"


def test_importing_the_settings_imports_neither_torch_nor_zarr():
    code = "import sys, cpsae.config; print([m for m in ('torch', 'zarr') if m in sys.modules])"
    assert run(code) == "[]"
