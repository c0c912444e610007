"""What a bucket answers, in words: one line for each way in which a request can fail.

No text of a server is handed on: some repeat the key id, or what was signed with the secret.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from cpsae.errors import RemoteError
from cpsae.urls import redacted

CONFLICTS = (AlreadyExistsError, PreconditionError)
"""A conditional request found another state than it was made for."""

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_ORIGIN = re.compile(r"https?://[^/\s,)]+")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_INSTANCE = ("169.254.169.254", "metadata.google", "169.254.170.2", "Error getting credentials")
_WITH_CREDENTIALS = "check the credentials, and what they may do there"


@contextmanager
def explained(name: str, key: str = "") -> Iterator[None]:
    """Turn what obstore raises about `key` of the store `name` into RemoteError or
    FileNotFoundError; conflicts pass as they are."""
    try:
        yield
    except CONFLICTS:
        raise
    except FileNotFoundError as error:
        if any(mark in str(error) for mark in _NO_BUCKET):
            raise RemoteError(_in_words(name, str(error))) from None
        raise FileNotFoundError(errno.ENOENT, "no such object", f"{name}/{key}") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        code = _CODE.search(str(error))
        why = f" ({code[1]})" if code else ""
        raise RemoteError(f"{name}: access is denied{why}; {_WITH_CREDENTIALS}") from None
    except BaseError as error:
        raise RemoteError(_in_words(name, str(error))) from None


def _in_words(name: str, text: str) -> str:
    """The line for an error's text."""
    origin = _ORIGIN.search(text)
    at = f" at {redacted(origin[0])}" if origin else ""
    if any(mark in text for mark in _NO_BUCKET):
        return f"{name}: there is no such bucket{at}; check its name and the endpoint"
    if any(mark in text for mark in _INSTANCE):
        return (
            f"{name}: no credentials are found; set them in the environment or in a profile (see "
            "docs/guide.md), or AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    status, code = _STATUS.search(text), _CODE.search(text)
    if status:
        why = f"{status[1]}{f' {code[1]}' if code else ''}"
        if status[1] in ("301", "307") or (code and code[1] == "PermanentRedirect"):
            return f"{name}: is in another region or place ({why}{at}); set AWS_REGION to its own"
        if status[1] in ("401", "403"):
            return f"{name}: access is denied ({why}); {_WITH_CREDENTIALS}"
        if status[1].startswith("5") or status[1] == "429":
            return (
                f"{name}: the server failed again and again ({why}{at}); what is written stays: "
                "run the same command later"
            )
        return f"{name}: the server refused a request ({why}{at}); check the URL and endpoint"
    if "dns error" in text:
        return f"{name}: the host{at} is not known; check the endpoint and the network"
    if "kind: Timeout" in text or "TimedOut" in text:
        return f"{name}: nobody answers{at}; check the endpoint and the network"
    if "kind: Connect" in text or "ConnectError" in text:
        return f"{name}: cannot be reached{at}; check the endpoint and the network"
    return f"{name}: a request failed{at}; check the network, then run the same command again"
