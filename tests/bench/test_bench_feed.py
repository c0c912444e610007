"""Timing a feed leaves nothing behind, and serves whole batches."""

from cpsae.bench import feed as bench


def test_a_line_each_and_no_store_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bench, "CHUNK_ROWS", 100)
    monkeypatch.setattr(bench, "CHUNKS", 3)
    table = bench.bench_feed(d=6, batch=32, rounds=2, folder=tmp_path)
    assert [line.name for line in table.lines] == [
        bench.MEMCPY,
        bench.BARE,
        "cpsae, first epoch",
        "cpsae, later epochs",
        "cpsae, mapped and in order",
        "zarr-python, in order",
        "tensorstore, in order",
    ]
    assert table.setting == {"d": 6, "batch": 32, "window_chunks": 4, "rounds": 2}
    assert list(tmp_path.iterdir()) == []
