"""A store on a web server is read, and nothing is written to it."""

import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import building
import numpy as np
import pytest

import cpsae
from cpsae.errors import RemoteError, SettingsError, StoreError
from cpsae.stages.extract import extract
from cpsae.store import open_store, verify_store
from cpsae.store.remote.settings import RemoteSettings
from cpsae.training.settings import FitSettings


class Quiet(SimpleHTTPRequestHandler):
    """Without a line for each request."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path, s3_environment):  # noqa: ARG001
    """A folder, and the URL at which it is served."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_rows_and_verification(served):
    folder, url = served
    building.build(folder / "a.zarr")
    here, there = open_store(folder / "a.zarr"), open_store(f"{url}/a.zarr")
    np.testing.assert_array_equal(there.training[:], here.training[:])
    assert verify_store(f"{url}/a.zarr").problems == []
    building.flip_bit(folder / "a.zarr/activations/c/1/0")
    building.remove(folder / "a.zarr/tokens/c/0/0")
    assert {key for key, _ in verify_store(f"{url}/a.zarr").problems} == {
        "activations/c/1/0",
        "tokens/c/0/0",
    }


def test_a_fit_from_it(served, tmp_path):
    folder, url = served
    rows = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    cpsae.write_store(folder / "a.zarr", rows)
    settings = FitSettings(steps=10, batch_size=64, n_latents=16, device="cpu")
    here = cpsae.fit(folder / "a.zarr", settings, out=tmp_path / "here", progress=False)
    there = cpsae.fit(f"{url}/a.zarr", settings, out=tmp_path / "there", progress=False)
    names = ("sae.safetensors", "evaluation.json")
    assert all((here.path / n).read_bytes() == (there.path / n).read_bytes() for n in names)


def test_nothing_is_written(served, settings):
    folder, url = served
    with pytest.raises(RemoteError, match="a web server is read and not written to"):
        cpsae.write_store(f"{url}/new.zarr", np.ones((10, 3), np.float32))
    with pytest.raises(RemoteError, match="a web server is read and not written to"):
        extract(settings(store=f"{url}/new.zarr"))
    assert list(folder.iterdir()) == []
    with pytest.raises(StoreError, match="is no store"):
        open_store(f"{url}/absent.zarr")


def test_without_obstore_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(RemoteError, match=r"need obstore; pip install 'cpsae\[s3\]'"):
        open_store("s3://bucket/a.zarr")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CPSAE_CACHE_SIZE", "much"),
        ("CPSAE_CACHE_SIZE", "-1"),
        ("CPSAE_REMOTE_PATIENCE", "0"),
        ("CPSAE_LEASE_SECONDS", "soon"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}={value}: expected"):
        RemoteSettings.from_environment()


def test_no_credentials_is_one_line_at_once(monkeypatch, tmp_path):
    for variable in list(os.environ):
        if variable.startswith("AWS_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RemoteError, match="no AWS credentials are found; set AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/a.zarr")


def test_a_profile_is_used(monkeypatch, tmp_path, s3_environment, bucket_url):
    rows = np.ones((100, 3), np.float32)
    keys = [s3_environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_environment['AWS_ENDPOINT_URL']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    cpsae.write_store(f"{bucket_url}/a.zarr", rows)
    assert open_store(f"{bucket_url}/a.zarr").training.vectors == 90
