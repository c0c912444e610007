"""A bucket at a URL is one, and what it keeps of what it reads."""

import numpy as np
import pytest
from buckets import BucketTests

from cpsae.errors import BusyError, RemoteError
from cpsae.store.folders import home_at
from cpsae.urls import StoreUrl


@pytest.fixture(autouse=True)
def _environment(s3_environment):
    """For all here."""


class TestRemote(BucketTests):
    @pytest.fixture
    def empty(self, bucket_url):
        return home_at(StoreUrl(f"{bucket_url}/a/store.zarr"))

    def again(self, bucket):
        return home_at(bucket.url)


class TestWithoutCache(BucketTests):
    @pytest.fixture
    def empty(self, bucket_url):
        return home_at(StoreUrl(bucket_url), cached=False)

    def again(self, bucket):
        return home_at(bucket.url, cached=False)


class TestInMemory(BucketTests):
    @pytest.fixture
    def empty(self, bucket_url, monkeypatch):
        monkeypatch.setenv("CPSAE_CACHE_SIZE", "0")
        return home_at(StoreUrl(f"{bucket_url}/s"))

    def again(self, bucket):
        return home_at(bucket.url)


@pytest.fixture
def home(bucket_url):
    return home_at(StoreUrl(f"{bucket_url}/s"))


def test_what_was_read_is_not_downloaded_again(home, proxy):
    home.write("c/0", bytes(1000))
    assert home.read("c/0").sum() == 0
    assert home_at(home.url).read("c/0").sum() == 0
    assert proxy.count("GET", "/s/c/0") == 1


def test_another_writer_s_object_is_seen(home):
    other = home_at(home.url)
    home.write("c/0", b"one")
    assert home.read("c/0").tobytes() == b"one"
    before = home.stamp("c/0")
    other.write("c/0", b"two")
    assert home.stamp("c/0") != before
    assert home.read("c/0").tobytes() == b"two"


def test_many_keys_cost_one_listing(home, proxy):
    for number in range(30):
        home.write(f"c/{number}", bytes(number))
    proxy.calm()
    assert home.sizes([f"c/{number}" for number in range(30)]) == {f"c/{n}": n for n in range(30)}
    assert proxy.count("GET", "list-type") == 1
    assert len(proxy.seen) == 1


def test_what_a_stale_listing_lacks_is_asked_for(home, proxy):
    keys = [f"c/{number}" for number in range(20)]
    for key in keys[:15]:
        home.write(key, b"1")
    assert len(home.sizes(keys)) == 15
    for key in keys[15:]:
        home.write(key, b"1")
    proxy.calm()
    proxy.rule = lambda *_: "stale"
    assert set(home.sizes(keys)) == set(keys)
    assert proxy.count("HEAD", "/c/") == 5


def test_prefetching_brings_what_is_read_next(home, proxy):
    for number in range(3):
        home.write(f"c/{number}", np.full(1000, number, np.uint8))
    home.prefetch([f"c/{number}" for number in range(3)] + ["never/there"])
    home._bringing.shutdown(wait=True)
    assert proxy.count("GET", "/c/") == 3
    proxy.calm()
    for number in range(3):
        home.stamp(f"c/{number}")
        assert set(home.read(f"c/{number}").tolist()) == {number}
    assert proxy.seen == []


def test_of_two_that_make_the_root_one_wins(home):
    other = home_at(home.url)
    home.write("zarr.json", b"{}")
    with pytest.raises(BusyError, match=r"has made or changed its zarr\.json meanwhile"):
        other.write("zarr.json", b'{"a": 1}')
    assert other.read("zarr.json").tobytes() == b"{}"
    other.write("zarr.json", b'{"b": 1}')
    with pytest.raises(BusyError):
        home.write("zarr.json", b'{"c": 1}')
    assert home.read("zarr.json").tobytes() == b'{"b": 1}'


def test_clearing_leaves_other_prefixes(home, bucket_url):
    beside = home_at(StoreUrl(f"{bucket_url}/s2"))
    beside.write("a", b"1")
    home.write("zarr.json", b"{}")
    home.write("c/0", b"1")
    assert home.is_occupied() and home.total_bytes() == 3
    with home.lock("store"):
        home.clear()
        assert not home.is_occupied()
        assert home.locked()
    assert beside.sizes(["a"]) == {"a": 1}


def test_nothing_is_renamed(home):
    with pytest.raises(RemoteError, match="cannot be renamed aside; give another --store"):
        home.set_aside("store")


def test_fellows_are_seen(home):
    assert home.is_gone() and home.is_gone(fellows=True)
    with home.fellow():
        for _ in range(100):
            if not home.is_gone(fellows=True):
                break
        assert not home.is_gone(fellows=True)
        assert home.is_gone()
    assert home.is_gone(fellows=True)
