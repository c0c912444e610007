"""Both stages, verification and repair on a bucket give what they give on a disk: through a proxy
that fails in every way, and after kills."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from building import files_of

import cpsae
from cpsae.errors import BusyError, RemoteError
from cpsae.stages.extract import extract
from cpsae.stages.repair import repair
from cpsae.store import open_store, verify_store
from cpsae.store.folders import home_at
from cpsae.training.settings import FitSettings
from cpsae.urls import StoreUrl

FIT = FitSettings(steps=30, batch_size=64, n_latents=24, checkpoint_every=10, device="cpu", lr=2e-3)
FAULTS = ("500", "503", "reset", "lost", "lost500", "slow", "cut", "short", "flip", "stale")


def sometimes(proxy, seed=0, share=0.25, sorts=FAULTS):
    """A share of the requests meets a fault, of all sorts in turn."""
    chance, sort = random.Random(seed), itertools.cycle(sorts)
    proxy.rule = lambda *_: next(sort) if chance.random() < share else "pass"


def met(proxy):
    """The sorts that were met."""
    return {fault for _, _, fault in proxy.seen} - {"pass"}


@pytest.fixture
def patient(monkeypatch):
    """As much patience as a fourth of all requests needs."""
    monkeypatch.setenv("CPSAE_REMOTE_PATIENCE", "60")
    monkeypatch.setenv("CPSAE_LEASE_SECONDS", "20")


@pytest.fixture(scope="module")
def local(gemma, corpus, tmp_path_factory):
    """An extraction on a disk."""
    path = tmp_path_factory.mktemp("local") / "acts.zarr"
    values = {"model": str(gemma), "layer": 2, "tokens": 8, "dataset": str(corpus), "device": "cpu"}
    extract(cpsae.ExtractSettings(**values, vectors=1500, store=str(path)))
    return path, values


@pytest.fixture
def at_url(local, bucket_url):
    """Settings of the same extraction into a bucket."""
    return cpsae.ExtractSettings(**local[1], vectors=1500, store=f"{bucket_url}/x/acts.zarr")


@pytest.fixture
def uploaded(local, bucket_url, server):
    """The store of `local`, copied to the bucket by another program."""
    for key, content in files_of(local[0]).items():
        server.put(f"{bucket_url}/acts.zarr/{key}", content)
    return f"{bucket_url}/acts.zarr"


def test_an_extraction_has_the_same_bytes(local, at_url, server, proxy):
    made = extract(at_url)
    assert str(made.path) == at_url.store
    assert server.files(at_url.store) == files_of(local[0])
    proxy.calm()
    extract(at_url)  # it is complete
    assert proxy.count("PUT", r"zarr/[^.]") == 0


@pytest.mark.usefixtures("patient")
def test_an_extraction_under_faults_has_the_same_bytes(local, at_url, server, proxy):
    sometimes(proxy)
    extract(at_url)
    assert met(proxy) >= set(FAULTS) - {"stale"}
    proxy.calm()
    assert server.files(at_url.store) == files_of(local[0])


def test_a_killed_extraction_goes_on(local, at_url, server, s3_environment):
    options = {**local[1], "vectors": 1500, "store": at_url.store}
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "cpsae", "extract", *arguments]
    kills = 0
    for wanted in (2, 25):
        process = subprocess.Popen(command, env={**os.environ, **s3_environment})
        while process.poll() is None and len(server.files(at_url.store)) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2
    done = subprocess.run(command, env={**os.environ, **s3_environment}, check=False)
    assert done.returncode == 0
    assert server.files(at_url.store) == files_of(local[0])


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("cache", ["", "40k", "0"])
@pytest.mark.parametrize("faults", [False, True])
def test_a_fit_from_it_is_the_same(local, uploaded, proxy, tmp_path, monkeypatch, cache, faults):
    """However small the cache."""
    monkeypatch.setenv("CPSAE_CACHE_SIZE", cache)
    if faults:
        sometimes(proxy)
    here = cpsae.fit(local[0], FIT, out=tmp_path / "here", progress=False)
    there = cpsae.fit(uploaded, FIT, out=tmp_path / "there", progress=False)
    for name in ("sae.safetensors", "evaluation.json"):
        assert (here.path / name).read_bytes() == (there.path / name).read_bytes()
    config = json.loads((there.path / "config.json").read_text())
    assert config["store"]["path"] == uploaded
    if cache == "40k":
        held = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*") if f.is_file())
        assert held <= 40_000
    if faults:
        assert len(met(proxy)) >= 5


def test_rows_are_read_and_origins_known(local, uploaded):
    here, there = open_store(local[0]), open_store(uploaded)
    assert there.identity == here.identity and str(there.path) == uploaded
    np.testing.assert_array_equal(there.training[5:900:7], here.training[5:900:7])
    np.testing.assert_array_equal(there.training.tokens(range(9)), here.training.tokens(range(9)))


@pytest.mark.usefixtures("patient")
def test_damage_is_found_and_repaired(local, uploaded, server, proxy):
    files = files_of(local[0])
    flipped, gone, short = "activations/c/1/0", "activations/c/3/0", "statistics/norms/c/2"
    server.put(f"{uploaded}/{flipped}", files[flipped][:9] + b"\x55" + files[flipped][10:])
    server.delete(f"{uploaded}/{gone}")
    server.put(f"{uploaded}/{short}", files[short][:-7])
    sometimes(proxy, share=0.15)
    problems = dict(verify_store(uploaded).problems)
    assert set(problems) == {flipped, gone, short}
    assert "checksum" in problems[flipped] and problems[gone] == "missing"
    repair(uploaded, model="store")
    assert verify_store(uploaded).problems == []
    proxy.calm()
    assert server.files(uploaded) == files


@pytest.mark.usefixtures("patient")
def test_rows_of_arrays(bucket_url, server, proxy, tmp_path):
    rows = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    cpsae.write_store(tmp_path / "here.zarr", rows)
    sometimes(proxy)
    there = open_store(cpsae.write_store(f"{bucket_url}/there.zarr", rows))
    assert server.files(f"{bucket_url}/there.zarr") == files_of(tmp_path / "here.zarr")
    assert there.training.vectors + there.evaluation.vectors == 3000


def test_of_two_writers_one_is_refused(at_url, server):
    refused = pytest.raises(BusyError, match=r"another process \(pid \d+ on .*\) is writing")
    with home_at(StoreUrl(at_url.store)).lock("store"), refused:
        extract(at_url)
    assert server.files(at_url.store) == {}
    extract(at_url)


def test_a_writer_that_lost_its_lock_stops(at_url, server, proxy):
    """Whatever it had in hand: another one may be writing."""
    home = home_at(StoreUrl(at_url.store))
    with home.lock("store"):
        server.put(f"{at_url.store}/.lock", b'{"id": "another", "count": 1, "term": 2}')
        proxy.calm()
        while not proxy.count("GET", r"\.lock"):  # it could not be renewed, and was looked at
            time.sleep(0.05)
        time.sleep(0.5)
        with pytest.raises(BusyError, match="was taken by another process, so it stops"):
            home.write("activations/c/0/0", b"1")
    assert server.files(at_url.store) == {}


def test_the_lock_of_a_dead_writer_is_taken_over(local, at_url, server):
    """Of another machine, whose processes nobody here can see."""
    lock = {"id": "x", "count": 3, "free": False, "host": "elsewhere", "pid": 1, "term": 1}
    server.put(f"{at_url.store}/.lock", json.dumps(lock).encode())
    extract(at_url)
    assert server.files(at_url.store) == files_of(local[0])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("403", "access is denied"),
        ("500", "the server failed again and again"),
        ("503", "the server failed again and again"),
        ("reset", "cannot be reached|check the network"),
    ],
)
def test_what_does_not_pass_is_one_line(uploaded, proxy, monkeypatch, fault, said):
    monkeypatch.setenv("CPSAE_REMOTE_PATIENCE", "2")
    proxy.rule = lambda *_: fault
    with pytest.raises(RemoteError, match=said) as raised:
        open_store(uploaded)
    assert "\n" not in str(raised.value) and uploaded in str(raised.value)


def test_no_store_and_no_bucket(bucket_url, request):
    for place, said in (
        (f"{bucket_url}/nothing.zarr", "is no store"),
        ("s3://no-such-bucket-0/acts.zarr", "no such bucket"),
    ):
        done = request.getfixturevalue("cpsae")("info", place)
        assert done.returncode == 1 and said in done.stderr and place in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
