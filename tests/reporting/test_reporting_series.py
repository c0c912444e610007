"""Which runs a line joins, and what it is called."""

from pathlib import Path

from cpsae.reporting.runs import Group, Run
from cpsae.reporting.series import series_of


def point(name, l0, preset="topk", kind=None, n=8, **settings):
    run = Run(Path(name), preset, kind or preset, {"seed": 0, **settings}, n, 10, "a", "a")
    run.figures["l0"] = l0
    return Group(name, [run])


def lines(*points):
    return {line.label: [group.name for group in line.groups] for line in series_of(points)}


def test_a_line_is_one_preset_over_what_chooses_l0_by_increasing_l0() -> None:
    assert lines(
        point("c", 40, k=40),
        point("a", 10, k=10),
        point("b", 20, k=20),
        point("r", 90, "baseline", "relu", l1=0.04),
        point("s", 30, "baseline", "relu", l1=0.1),
        point("j", 33, "jumprelu", target_l0=32),
    ) == {"topk": ["a", "b", "c"], "baseline (relu)": ["s", "r"], "jumprelu": ["j"]}


def test_a_line_says_in_what_it_is_no_longer_the_preset_of_most() -> None:
    plain = {"growth": "hybrid", "beta": 0.9}
    assert lines(
        point("a", 10, **plain),
        point("b", 20, **{**plain, "growth": "none"}),
        point("c", 30, **{**plain, "beta": 0.0}),
        point("d", 30, preset="relu"),
    ) == {"topk": ["a"], "topk, growth=none": ["b"], "topk, beta=0.0": ["c"], "relu": ["d"]}


def test_of_two_both_say_it() -> None:
    assert lines(point("a", 10, n=8), point("b", 20, n=32), point("c", 5, n=32)) == {
        "topk, n=8": ["a"],
        "topk, n=32": ["c", "b"],
    }
