"""Where a store may be: a path on this machine, or a URL of a bucket or a web server.

A URL carries no credentials: one that does is refused, and no text shows them.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cpsae.errors import CpsaeError

BUCKETS = ("s3", "gs", "az")
WEB = ("https", "http")
"""Servers of files: what is there is read, and nothing is written."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_CREDENTIALS = re.compile(r"//\S*@")
_QUERY = re.compile(r"([?#])\S+")
_FORMS = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or https://host/path"


@dataclass(frozen=True)
class StoreUrl:
    """The URL of a store, or of a folder of stores; checked when it is made by `store_place`."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> "StoreUrl":
        return StoreUrl(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.rpartition("/")[2]

    @property
    def scheme(self) -> str:
        """Such as `s3`."""
        return urlsplit(self.text).scheme

    @property
    def host(self) -> str:
        """The bucket, the container, or the server with its port."""
        return urlsplit(self.text).netloc

    @property
    def prefix(self) -> str:
        """What the keys of the store begin with, without slashes at its ends."""
        return urlsplit(self.text).path.strip("/")

    def absolute(self) -> "StoreUrl":
        """Itself, as there is no working directory of a URL."""
        return self


Place = Path | StoreUrl


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is meant as a URL, of whatever scheme: a path has no colon before a slash."""
    return _URL.match(os.fspath(path)) is not None


def redacted(text: str) -> str:
    """A text without what may be a secret in a URL: user, password, query."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub("//***@", text))


def store_place(path: str | os.PathLike[str], what: str, error: type[CpsaeError]) -> Place:
    """`path` as a place of stores: a path (`~` expanded) or a checked URL. Raises `error`, one line
    that begins with `what`, for a URL of another kind, and for one that carries credentials."""
    text = os.fspath(path)
    if not is_url(text):
        return Path(text).expanduser()
    shown = f"{what} {redacted(text)}"
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in (*BUCKETS, *WEB) or not rest.strip("/"):
        raise error(f"{shown}: expected a local folder, {_FORMS}")
    host, _, prefix = rest.partition("/")
    if "@" in host or (":" in host and "@" in rest) or "?" in rest or "#" in rest:
        raise error(
            f"{shown}: holds credentials or a query, which no store keeps; leave them out, and "
            "give credentials in the environment"
        )
    if scheme in BUCKETS and ":" in host:
        raise error(f"{what} {scheme}://***: expected {_FORMS}")
    parts = prefix.rstrip("/").split("/")
    odd = any(part in ("", ".", "..") for part in parts) and parts != [""]
    if odd or not host or any(c.isspace() or not c.isprintable() for c in rest):
        raise error(f"{shown}: expected {_FORMS}, without spaces, `//` or `..`")
    return StoreUrl(f"{scheme}://{'/'.join([host, *parts]).rstrip('/')}")
