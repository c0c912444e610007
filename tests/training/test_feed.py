"""The feed against brute force: which rows it serves, in any cut, thread count and continuation."""

import shutil
import subprocess
import sys
import threading
from collections import Counter
from itertools import islice

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cpsae.errors import DamagedStoreError, StoreError
from cpsae.memory import Room
from cpsae.store import StorePart, open_store
from cpsae.training.feed import ActivationFeed, FeedPosition
from cpsae.training.resident import ResidentRows, resident_rows

N_ROWS, D = 600, 6
OUTLIERS = [3, 77, 400]


@pytest.fixture(scope="module")
def rows():
    rows = np.random.default_rng(0).standard_normal((N_ROWS, D)).astype(np.float32)
    rows[OUTLIERS] *= 100
    return rows


@pytest.fixture(scope="module")
def store(rows, make_store):
    return make_store(rows)


def multiset(rows):
    return Counter(row.tobytes() for row in np.asarray(rows))


def stream(feed, n_rows):
    """At least `n_rows` rows, in the order served."""
    batches = islice(feed, -(-n_rows // feed.batch_size))
    return np.concatenate([batch.numpy().copy() for batch in batches])


@pytest.mark.parametrize("batch_size", [1, 37, 64, 128, 300, 597])
def test_every_kept_row_once_an_epoch(store, rows, batch_size):
    kept = np.delete(rows, OUTLIERS, axis=0)
    feed = ActivationFeed(store.training, batch_size, window_chunks=2)
    served = stream(feed, 3 * len(kept))
    for epoch in range(3):
        begin = epoch * len(kept)
        assert multiset(served[begin : begin + len(kept)]) == multiset(kept)
    assert not np.array_equal(served[: len(kept)], served[len(kept) : 2 * len(kept)])


def test_without_max_norm_outliers_are_served_too(store, rows):
    feed = ActivationFeed(store.training, 50, max_norm=0)
    assert multiset(stream(feed, N_ROWS)) == multiset(rows)


def test_skips_exactly_the_rows_over_the_bound(make_store):
    """Norms 1..5, median 3: at max_norm 4/3 the row of norm 4 is on the bound and stays."""
    rows = np.zeros((5, 3), np.float32)
    rows[:, 1] = [1, 2, 3, 4, 5]
    feed = ActivationFeed(make_store(rows).training, 4, max_norm=4 / 3)
    assert sorted(stream(feed, 4)[:, 1]) == [1, 2, 3, 4]


def test_a_window_is_its_chunks_shuffled_together(store):
    feed = ActivationFeed(store.training, 10, max_norm=0, window_chunks=3)
    first = feed.chunk_order(0)[:3]
    expected = np.concatenate([store.training.rows(chunk) for chunk in first])
    served = stream(feed, len(expected))[: len(expected)]
    assert multiset(served) == multiset(expected)
    assert sorted(chunk.key for chunk in feed.chunk_order(0)) == sorted(
        chunk.key for chunk in store.training.chunks
    )
    # rows of one batch come from all over the window
    in_chunk = [multiset(store.training.rows(chunk)) for chunk in first]
    assert all(any(row.tobytes() in chunk for row in served[:30]) for chunk in in_chunk)


def test_epoch_0_goes_through_the_chunks_as_they_are_stored(store):
    feed = ActivationFeed(store.training, 64, window_chunks=1)
    stored = [chunk.index for chunk in store.training.chunks]
    assert [chunk.index for chunk in feed.chunk_order(0)] == stored == sorted(stored)
    for epoch in (1, 2):
        order = [chunk.index for chunk in feed.chunk_order(epoch)]
        assert order != stored
        assert sorted(order) == stored


@pytest.mark.parametrize("read_ahead", [0, 1, 4])
def test_recycled_batches_are_the_same_in_less_memory(store, read_ahead):
    plain = ActivationFeed(store.training, 37, window_chunks=2, read_ahead=read_ahead)
    held = list(islice(plain, 40))
    assert len({batch.data_ptr() for batch in held}) == len(held)
    recycled = ActivationFeed(store.training, 37, window_chunks=2, read_ahead=read_ahead)
    addresses = set()
    for expected, batch in zip(held, recycled.stream(recycle=True), strict=False):
        assert np.array_equal(expected.numpy(), batch.numpy())
        addresses.add(batch.data_ptr())
    assert len(addresses) == read_ahead + 1


def test_a_bound_that_is_given_is_kept_to(store, rows):
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1))
    bound = float(np.median(norms))
    feed = ActivationFeed(store.training, 50, norm_bound=bound)
    kept = rows[norms.astype(np.float32) <= bound]
    assert multiset(stream(feed, len(kept))[: len(kept)]) == multiset(kept)


def test_seeds_give_other_orders(store):
    orders = [stream(ActivationFeed(store.training, 50, seed=seed), 100) for seed in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


@pytest.mark.parametrize("options", [{"threads": 4}, {"threads": 1, "read_ahead": 0}])
def test_threads_and_read_ahead_change_nothing(store, options):
    plain = ActivationFeed(store.training, 37, window_chunks=2, threads=1)
    other = ActivationFeed(store.training, 37, window_chunks=2, **options)
    assert np.array_equal(stream(plain, 1500), stream(other, 1500))


@pytest.mark.parametrize("share", [None, (0, 20), (20, 37), (37, 37)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_held_on_a_device_make_the_same_batches(rows, make_store, device, dtype, share):
    """The CPU is as good a device."""
    part = make_store(rows, store_dtype=dtype).training
    options = {"window_chunks": 2, "share": share}
    held = ActivationFeed(part, 37, resident=ResidentRows(part, torch.device(device)), **options)
    plain = ActivationFeed(part, 37, **options)
    for mine, expected in islice(zip(held.stream(recycle=True), plain, strict=False), 40):
        assert mine.dtype == expected.dtype and mine.device.type == device
        assert torch.equal(mine.cpu(), expected)
        assert held.position == plain.position
    assert held.position.epoch >= 2


def test_a_chunk_is_read_once_to_be_held(store, monkeypatch):
    read = Counter()
    whole = StorePart.rows

    def counted(part, chunk):
        read[chunk.key] += 1
        return whole(part, chunk)

    monkeypatch.setattr(StorePart, "rows", counted)
    held = ResidentRows(store.training, torch.device("cpu"))
    feed = ActivationFeed(store.training, 64, resident=held)
    list(islice(feed, 4 * N_ROWS // 64))
    assert read == dict.fromkeys([chunk.key for chunk in store.training.chunks], 1)


@pytest.mark.parametrize(
    ("free", "processes", "kept"), [(10**6, 1, True), (10**6, 200, False), (20_000, 1, False)]
)
def test_rows_are_held_where_they_fit_beside_the_training(
    store, monkeypatch, free, processes, kept
):
    """14 kB of rows beside 5 kB."""
    cuda, notes = torch.device("cuda:0"), []
    monkeypatch.setattr("cpsae.training.resident.free_memory", lambda _device: Room(free))
    monkeypatch.setattr("cpsae.training.resident.ResidentRows", lambda *_: "rows")
    found = resident_rows(store.training, cuda, 5000, processes, notes.append)
    assert (found is not None) == kept
    place = "kept in the memory of cuda:0" if kept else "read from the store as they are needed"
    assert place in notes[0].text and notes[0].kind == "detail"
    assert resident_rows(store.training, torch.device("cpu"), 0) is None


@pytest.mark.parametrize("batch_size", [37, 300])
def test_continues_exactly_from_every_position(store, batch_size):
    feed = ActivationFeed(store.training, batch_size, window_chunks=2)
    n_batches = 2 * N_ROWS // batch_size + 2
    served, positions = [], [feed.position]
    for batch in islice(feed, n_batches):
        served.append(batch.numpy())
        positions.append(feed.position)
    assert {position.epoch for position in positions} >= {0, 1, 2}
    assert any(position.row for position in positions)
    for done, position in enumerate(positions[:-3]):
        again = ActivationFeed(store.training, batch_size, window_chunks=2, position=position)
        for expected, batch in zip(served[done : done + 3], again, strict=False):
            assert np.array_equal(expected, batch.numpy())


def test_iterating_again_goes_on(store):
    whole = stream(ActivationFeed(store.training, 50), 400)
    feed = ActivationFeed(store.training, 50)
    assert np.array_equal(np.concatenate([stream(feed, 150), stream(feed, 250)]), whole)


def test_bfloat16_rows_keep_their_bits(rows, make_store):
    store = make_store(rows, store_dtype="bfloat16")
    feed = ActivationFeed(store.training, 100, max_norm=0)
    served = np.concatenate([batch.float().numpy() for batch in islice(feed, 6)])
    expected = rows.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert multiset(served) == multiset(expected)


@pytest.mark.parametrize("window", [0, 2])
def test_a_flipped_bit_raises_before_a_row_of_its_chunk_is_served(store, tmp_path, window):
    shutil.copytree(store.path, tmp_path / "s")
    copy = open_store(tmp_path / "s")
    feed = ActivationFeed(copy.training, 20, window_chunks=2)
    chunk = feed.chunk_order(0)[2 * window + 1]
    with (copy.path / chunk.key).open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 16]))
    forbidden = multiset(store.training.rows(chunk))
    served = 0
    with pytest.raises(DamagedStoreError, match=chunk.key):
        for batch in feed:
            served += len(batch)
            assert not multiset(batch.numpy()) & forbidden
    assert (served == 0) == (window == 0)
    assert feed_threads() == []


def feed_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_closing_ends_its_threads(store):
    batches = iter(ActivationFeed(store.training, 20))
    next(batches)
    assert feed_threads()
    batches.close()
    assert feed_threads() == []


def test_few_rows_far_apart_are_served_from_everywhere(make_store):
    rows = np.ones((N_ROWS, D), np.float32)
    rows[[10, 20, 30]] = 0.01 * np.eye(3, D, dtype=np.float32)
    store = make_store(rows)
    wanted = multiset(rows[[10, 20, 30]])
    for window in range(10):
        feed = ActivationFeed(
            store.training, 3, max_norm=0.1, window_chunks=1, position=FeedPosition(0, window)
        )
        assert set(multiset(stream(feed, 6))) <= set(wanted)


def test_no_row_left_is_an_error(store):
    feed = ActivationFeed(store.training, 3, max_norm=1e-6, window_chunks=2)
    with pytest.raises(StoreError, match="max_norm leaves no row"):
        next(iter(feed))


def test_in_a_data_loader(store, monkeypatch):
    plain = stream(ActivationFeed(store.training, 50), 100)
    feed = ActivationFeed(store.training, 50)
    loader = DataLoader(feed, batch_size=None)
    assert np.array_equal(np.concatenate([b.numpy() for b in islice(loader, 2)]), plain)
    monkeypatch.setattr("cpsae.training.feed.get_worker_info", lambda: object())
    with pytest.raises(RuntimeError, match="num_workers=0"):
        next(iter(feed))


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"window_chunks": 0}, {"threads": 0}])
def test_refuses_what_would_never_end(store, wrong):
    with pytest.raises(ValueError, match="from 1"):
        ActivationFeed(store.training, **wrong)


def test_an_iterator_left_open_ends_quietly(store):
    program = (
        "import sys; from cpsae.store import open_store\n"
        "from cpsae.training.feed import ActivationFeed\n"
        "batches = iter(ActivationFeed(open_store(sys.argv[1]).training, 10)); next(batches)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(store.path)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("wrong", ({"epoch": -1}, {"window": "0"}, {"row": [1]}, {"row": True}))
def test_a_position_is_three_whole_numbers(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FeedPosition(**wrong)
