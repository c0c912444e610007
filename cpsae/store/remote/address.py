"""From the URL that a user names to its bucket."""

from cpsae.errors import RemoteError
from cpsae.store.bucket import Home
from cpsae.store.remote.settings import RemoteSettings
from cpsae.urls import StoreUrl


def open_url(url: StoreUrl, cached: bool = True) -> Home:
    """cached: keep copies of what is read. Raises RemoteError where obstore is not installed, or
    there are no credentials; nothing else is asked of the server."""
    try:
        import obstore  # noqa: F401
    except ImportError:
        raise RemoteError(f"{url}: stores at URLs need obstore; pip install 'cpsae[s3]'") from None
    from cpsae.store.remote.bucket import RemoteBucket

    return RemoteBucket(url, RemoteSettings.from_environment(), cached)
