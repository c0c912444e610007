"""Places of stores: which URLs are taken, and that no text shows what may be a secret."""

from pathlib import Path

import pytest

from cpsae.errors import StoreError
from cpsae.urls import StoreUrl, is_url, redacted, store_place


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://bucket/a/b.zarr", ("s3", "bucket", "a/b.zarr", "b.zarr")),
        ("s3://bucket/a.zarr/", ("s3", "bucket", "a.zarr", "a.zarr")),
        ("S3://bucket", ("s3", "bucket", "", "bucket")),
        ("gs://b/x", ("gs", "b", "x", "x")),
        ("az://container/x", ("az", "container", "x", "x")),
        ("https://host:8080/x/a.zarr", ("https", "host:8080", "x/a.zarr", "a.zarr")),
    ],
)
def test_urls_that_are_taken(text, parts) -> None:
    place = store_place(text, "store", StoreError)
    assert isinstance(place, StoreUrl)
    assert (place.scheme, place.host, place.prefix, place.name) == parts
    assert store_place(str(place), "store", StoreError) == place
    assert (place / "b").prefix == f"{parts[2]}/b".strip("/")


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://host/x", "file:///tmp/x", "s3:/b", "s3://", "gs:///x", "s3://b/../x", "s3://b//x"),
        *("s3://b/./x", "s3://b/x y", "s3://b/x\n", "hf://user/x", "s3://b:9000/x"),
    ],
)
def test_urls_that_are_not(text) -> None:
    with pytest.raises(StoreError, match="expected") as raised:
        store_place(text, "store", StoreError)
    assert "\n" not in str(raised.value).replace(text, "")


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@host/a.zarr",
        "s3://AKIA:hunter2@bucket/a.zarr",
        "s3://AKIA:hunter2/x@bucket/a.zarr",
        "https://host/a.zarr?X-Amz-Signature=hunter2",
        "https://host/a.zarr#hunter2",
        "s3://bucket:hunter2/a.zarr",
    ],
)
def test_credentials_are_refused_and_not_shown(text) -> None:
    with pytest.raises(StoreError) as raised:
        store_place(text, "store", StoreError)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in redacted(text) or ":hunter2/" in text  # a port is no secret


@pytest.mark.parametrize("text", ["acts.zarr", "./a:b/c", "C:\\x", "a/s3://b", "~/x"])
def test_paths_are_paths(text) -> None:
    assert not is_url(text)
    assert store_place(text, "store", StoreError) == Path(text).expanduser()
