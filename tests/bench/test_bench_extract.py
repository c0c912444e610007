"""Timing an extraction: vectors are counted in stores, which are gone afterwards."""

from tiny import LAYER, TOKENS

from cpsae.bench import extract as bench
from cpsae.config import ExtractSettings


def test_two_lines_and_no_store_left(gemma, corpus, tmp_path) -> None:
    settings = ExtractSettings(
        model=str(gemma),
        layer=LAYER,
        tokens=TOKENS,
        dataset=str(corpus),
        vectors=4000,
        device="cpu",
    )
    table = bench.bench_extract(settings, rounds=1, folder=tmp_path)
    floor, ours = table.lines
    assert (floor.name, ours.name) == (bench.FLOOR, "cpsae extract")
    assert floor.rate > 0 and ours.rate > 0
    assert list(tmp_path.iterdir()) == []
