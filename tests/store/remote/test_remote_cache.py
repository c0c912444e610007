"""Copies on disk: bounded, the longest unused go first, and a damaged one is as good as none."""

import os
import subprocess
import sys

import pytest

from cpsae.errors import DiskError
from cpsae.store.remote.cache import DiskCache

SIZE = 1000
ON_DISK = SIZE + 12


def filled(number, count=None):
    """What brings `SIZE` bytes of that number."""

    def fill(put):
        if count is not None:
            count.append(number)
        put(memoryview(bytes([number]) * (SIZE // 2)))
        put(memoryview(bytes([number]) * (SIZE - SIZE // 2)))

    return fill


def test_a_copy_is_made_once(tmp_path):
    cache, made = DiskCache(tmp_path, 10**6), []
    for _ in range(3):
        assert set(cache.fetch("a", SIZE, filled(7, made)).tolist()) == {7}
    assert made == [7] and cache.held() == ON_DISK
    assert DiskCache(tmp_path, 10**6).find("a", SIZE).sum() == 7 * SIZE


def test_the_longest_unused_go_first(tmp_path):
    limit = 3 * ON_DISK
    cache = DiskCache(tmp_path, limit)
    for number, name in enumerate("abc"):
        cache.fetch(name, SIZE, filled(number))
        os.utime(cache.folder / name, ns=(number, number))
    mapped = cache.find("a", SIZE)  # used now
    cache.fetch("d", SIZE, filled(3))
    assert cache.find("b", SIZE) is None
    assert all(cache.has(name) for name in "acd")
    for name in "efg":
        cache.fetch(name, SIZE, filled(4))
        assert cache.held() <= limit
    assert not cache.has("a") and set(mapped.tolist()) == {0}, "mapped, it stays readable"


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path, ON_DISK - 1)
    assert cache.fetch("a", SIZE, filled(1)) is None
    assert cache.held() == 0


@pytest.mark.parametrize("at", [0, 500, SIZE, SIZE + 11])
def test_a_flipped_bit_is_found(tmp_path, at):
    DiskCache(tmp_path, 10**6).fetch("a", SIZE, filled(7))
    path = tmp_path / "objects/a"
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)
    cache, made = DiskCache(tmp_path, 10**6), []
    assert cache.find("a", SIZE) is None
    assert set(cache.fetch("a", SIZE, filled(7, made)).tolist()) == {7} and made == [7]


@pytest.mark.parametrize("short", [-1, 1])
def test_what_has_another_length_is_no_copy(tmp_path, short):
    cache = DiskCache(tmp_path, 10**6)
    with pytest.raises(EOFError):
        cache.fetch("a", SIZE + short, filled(7))
    assert cache.held() == 0 and not cache.has("a")


def test_what_a_killed_process_left_is_made_anew(tmp_path):
    limit = 2 * ON_DISK
    cache = DiskCache(tmp_path, limit)
    cache.folder.mkdir(parents=True)
    (cache.folder / ".a.part").write_bytes(bytes(ON_DISK))
    (cache.folder / ".b.part").write_bytes(bytes(ON_DISK))
    assert cache.fetch("a", SIZE, filled(1)).sum() == SIZE
    assert cache.fetch("c", SIZE, filled(2)).sum() == 2 * SIZE
    assert cache.held() <= limit


def test_processes_share_it(tmp_path):
    """Of four that want the same five, each is made once, and the limit holds."""
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from cpsae.store.remote.cache import DiskCache\n"
        "cache, made = DiskCache(Path(sys.argv[1]), 5 * 100012), 0\n"
        "def fill(put):\n"
        "    global made; made += 1\n"
        "    put(memoryview(np.full(100000, 3, np.uint8)))\n"
        "for name in 'abcde':\n"
        "    assert cache.fetch(name, 100000, fill).sum() == 300000\n"
        "assert cache.held() <= cache.limit\n"
        "print(made)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sum(int(process.communicate()[0]) for process in started) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_no_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="CPSAE_CACHE_DIR"):
        DiskCache(tmp_path / "x", None).fetch("a", SIZE, filled(1))
