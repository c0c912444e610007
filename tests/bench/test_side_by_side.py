"""Rounds, ratios and rates, with a clock that the test sets."""

from functools import partial

import pytest

from cpsae.bench.side_by_side import Table, Work, lines, measure
from cpsae.events import Advanced, Finished, Started, ignore


def work(*vectors):
    return {f"w{i}": Work(lambda: None, n) for i, n in enumerate(vectors)}


def test_rounds_are_interleaved_and_the_first_does_not_count() -> None:
    called, events = [], []
    contenders = {name: Work(partial(called.append, name), 1) for name in "ab"}
    numbers = iter(range(1, 100))

    def clock(call):
        call()
        return float(next(numbers))

    seconds = measure(contenders, 2, clock, "x", events.append)
    assert called == list("ababab")
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert isinstance(events[0], Started) and events[0].total == 6
    assert events[1:-1] == [Advanced(i) for i in range(1, 7)]
    assert isinstance(events[-1], Finished)


def test_ratios_are_within_rounds() -> None:
    found = lines(work(10, 10), {"w0": [1.0, 2.0, 30.0], "w1": [2.0, 2.0, 40.0]}, "w0")
    assert [line.name for line in found] == ["w0", "w1"]
    assert (found[0].of_floor, found[0].seconds, found[0].rate) == (1.0, 2.0, 5.0)
    assert (found[1].of_floor, found[1].lowest, found[1].highest) == (0.75, 0.5, 1.0)


def test_other_numbers_of_vectors_count() -> None:
    _, other = lines(work(10, 40), {"w0": [1.0], "w1": [4.0]}, "w0")
    assert other.of_floor == 1.0 and other.rate == 10.0


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_table_is_json(rounds) -> None:
    seconds = measure(work(1), rounds, lambda _call: 1.0, "x", ignore)
    table = Table("t", "w0", {"d": 3}, lines(work(1), seconds, "w0"))
    line = {"name": "w0", "seconds": 1.0, "of_floor": 1.0, "lowest": 1.0, "highest": 1.0}
    assert table.as_json() == {
        "title": "t",
        "floor": "w0",
        "setting": {"d": 3},
        "lines": [{**line, "rate": 1.0}],
    }
