"""From a URL to obstore's view of it, with the credentials that the environment has."""

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from cpsae.errors import RemoteError
from cpsae.urls import StoreUrl, redacted

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

ObjectStore = S3Store | GCSStore | AzureStore | HTTPStore

_OF_CREDENTIALS = ("AWS_", "GOOGLE_", "AZURE_", "BOTO")
_CONTAINER = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_LONGEST_RETRY = 240.0
"""Seconds: what is sent again is signed as it was at first, and a signature is good for minutes."""


def connect(url: StoreUrl, silence: float, patience: float, whole: float) -> ObjectStore:
    """The objects below `url`. Seconds: `silence` until a server that says nothing is asked again,
    `whole` for a request that moves on, `patience` until failing is an error.

    Raises RemoteError, one line, where there are no credentials or a setting is wrong.
    """
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(silence, 10.0)),
        "read_timeout": timedelta(seconds=silence),
        "timeout": timedelta(seconds=whole),
    }
    again: RetryConfig = {
        "max_retries": 20,
        "retry_timeout": timedelta(seconds=min(patience, _LONGEST_RETRY)),
        "backoff": {"max_backoff": timedelta(seconds=min(patience / 4, 15.0))},
    }
    try:
        return _connected(url, options, again)
    except (BaseError, ValueError, TypeError) as error:
        kind = type(error).__name__
        raise RemoteError(
            f"{url}: cannot be opened with the settings of the environment ({kind}); check the "
            f"variables of {_variables(url)}"
        ) from None


def _connected(url: StoreUrl, options: "ClientConfig", again: "RetryConfig") -> ObjectStore:
    prefix = url.prefix or None
    if url.scheme == "s3":
        found = dict(_aws(url, _environment()))
        endpoint = found.get("endpoint") or _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        options["allow_http"] = (endpoint or _first("AWS_ENDPOINT") or "").startswith("http://")
        return S3Store(url.host, prefix=prefix, client_options=options, retry_config=again, **found)
    if url.scheme == "gs":
        return GCSStore(url.host, prefix=prefix, client_options=options, retry_config=again)
    if url.scheme == "az":
        emulated = os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true")
        options["allow_http"] = emulated
        return AzureStore(url.host, prefix=prefix, client_options=options, retry_config=again)
    options["allow_http"] = url.scheme == "http"
    return HTTPStore(str(url), client_options=options, retry_config=again)


def _variables(url: StoreUrl) -> str:
    return {"s3": "AWS_*", "gs": "GOOGLE_*", "az": "AZURE_*"}.get(url.scheme, "the proxy")


def _first(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _environment() -> tuple[tuple[str, str], ...]:
    """All that credentials may depend on, so that they are looked for once for the same."""
    return tuple(sorted(kv for kv in os.environ.items() if kv[0].startswith(_OF_CREDENTIALS)))


@lru_cache(maxsize=8)
def _aws(url: StoreUrl, environment: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    """What S3Store is to be told beyond the environment, which it reads by itself: of a profile,
    as boto3 finds it.

    Raises RemoteError where there are no credentials: obstore would ask the machine's metadata
    server, which is not there on most machines, for minutes.
    """
    given = dict(environment)
    if given.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return {}
    keys = given.get("AWS_ACCESS_KEY_ID") and given.get("AWS_SECRET_ACCESS_KEY")
    if keys and not given.get("AWS_PROFILE"):
        return {}
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if given.get("AWS_PROFILE"):
            raise RemoteError(
                f"{url}: AWS_PROFILE needs boto3; pip install 'cpsae[s3]', or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        return {}
    try:
        session = boto3.Session()
        found = session.get_credentials()
        profile = session._session.get_scoped_config()
    except BotoCoreError as error:
        what = redacted(type(error).__name__)
        raise RemoteError(
            f"{url}: the AWS profile cannot be used ({what}); check AWS_PROFILE and ~/.aws"
        ) from None
    if found is None:
        if any(given.get(name) for name in _CONTAINER):
            return {}
        raise RemoteError(
            f"{url}: no AWS credentials are found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    told: dict[str, Any] = {"credential_provider": Boto3CredentialProvider(session)}
    endpoint = profile.get("endpoint_url")
    if endpoint and not any(given.get(f"AWS_ENDPOINT{end}") for end in ("", "_URL", "_URL_S3")):
        told["endpoint"] = endpoint
    return told
