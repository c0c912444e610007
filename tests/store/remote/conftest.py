"""A real S3 server in a process of its own, and a proxy in front of it that fails by order."""

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from faulty_proxy import FaultyProxy

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of a moto server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).read()
            break
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None and time.monotonic() < deadline, "moto did not start"
            time.sleep(0.05)
    yield "127.0.0.1", port
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def session_proxy(s3_server: tuple[str, int]) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(session_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """Calm, until a test orders faults."""
    session_proxy.calm()
    yield session_proxy
    session_proxy.calm()


@pytest.fixture
def s3_environment(proxy: FaultyProxy, tmp_path: Path, monkeypatch) -> dict[str, str]:
    """What leads to that server, and keeps waits short; set here and given, for other processes."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "CPSAE_")):
            monkeypatch.delenv(name)
    values = {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_CONFIG_FILE": str(tmp_path / "no aws config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no aws credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CPSAE_CACHE_DIR": str(tmp_path / "cache"),
        "CPSAE_REMOTE_PATIENCE": "6",
        "CPSAE_LEASE_SECONDS": "2",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def bucket_url(s3_environment: dict[str, str], s3_server: tuple[str, int]) -> str:  # noqa: ARG001
    """The URL of a bucket of this test's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    host, port = s3_server
    urlopen(Request(f"http://{host}:{port}/{name}", method="PUT"), timeout=10).read()
    return f"s3://{name}"


class Server:
    """The objects of the server as they are, past the proxy."""

    def __init__(self, s3_server: tuple[str, int]) -> None:
        import boto3

        host, port = s3_server
        self.client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")

    def files(self, url: str) -> dict[str, bytes]:
        """Content by key below a URL, without locks."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        found = {
            key.removeprefix(prefix).strip("/"): self.client.get_object(Bucket=bucket, Key=key)[
                "Body"
            ].read()
            for key in keys
        }
        return {k: v for k, v in found.items() if k != ".lock"}

    def put(self, url: str, content: bytes) -> None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def delete(self, url: str) -> None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=key)

    def lock(self, url: str) -> dict[str, object]:
        """What the lock of a store says."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        body = self.client.get_object(Bucket=bucket, Key=f"{prefix}/.lock")["Body"].read()
        found: dict[str, object] = json.loads(body)
        return found


@pytest.fixture
def server(s3_server: tuple[str, int], s3_environment: dict[str, str]) -> Server:  # noqa: ARG001
    return Server(s3_server)
