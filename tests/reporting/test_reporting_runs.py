"""Names that tell runs apart, and groups of seeds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpsae.reporting.runs import Run, distinct_names, group_by_seed


def run(path, seed=0, order_seed=0, **values):
    settings = {"seed": seed, "order_seed": order_seed, **values.pop("settings", {})}
    common = {"preset": "topk", "kind": "topk", "n": 8, "steps": 10, "trained_on": "a"}
    common |= {"measured_on": "a", "figures": {"l0": 4.0}}
    return Run(Path(path), settings=settings, **{**common, **values})


PARTS = st.lists(st.sampled_from(["a", "b", "k=8"]), min_size=1, max_size=4)


@given(st.lists(PARTS, min_size=1, max_size=8, unique_by=tuple))
def test_names_are_the_shortest_that_no_other_path_ends_with(paths) -> None:
    given_paths = [Path("/root", *parts) for parts in paths]
    names = distinct_names(given_paths)
    assert len(set(names)) == len(names)
    for path, name in zip(given_paths, names, strict=True):
        others = [f"{other}" for other in given_paths if other != path]
        assert f"{path}".endswith(f"/{name}") or f"{path}" == name
        assert not any(other.endswith(f"/{name}") for other in others)
        shorter = name.partition("/")[2]
        assert not shorter or any(other.endswith(f"/{shorter}") for other in others)


def test_seeds_are_one_group_with_its_mean_and_spread() -> None:
    values = [0.5, 0.75, 0.9]
    runs = [
        run(f"/x/k=8,seed={s}", seed=s, figures={"l0": 4.0, "cosine": value, "own": value})
        for s, value in enumerate(values)
    ]
    runs[1].figures.pop("own")
    runs.append(run("/x/k=16,seed=0", settings={"k": 16}))
    (first, second), twice = group_by_seed(runs)
    assert twice == []
    assert (first.name, second.name) == ("k=8", "k=16,seed=0")
    assert first.runs == runs[:3] and second.runs == runs[3:]
    spread = first.spread("cosine")
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.std == pytest.approx(np.std(values, ddof=1))
    assert first.bar("cosine") == (spread.low, spread.high) == (0.5, 0.9)
    assert first.spread("own") is None and second.spread("l0").std == 0.0


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["/x/topk/seed=0", "/x/topk/seed=1"], "topk"),
        (["/x/seed=0,k=8", "/x/seed=1,k=8"], "k=8"),
        (["/x/k=8,seed=0,order_seed=0", "/x/k=8,seed=1,order_seed=1"], "k=8"),
        (["/x/one", "/x/two"], "one (and 1 more)"),
        (["/x/0/run", "/x/1/run"], "run (and 1 more)"),
    ],
)
def test_what_a_group_is_called(paths, name) -> None:
    groups, _ = group_by_seed([run(path, s, s) for s, path in enumerate(paths)])
    assert [group.name for group in groups] == [name]


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"lr": 1e-3}},
        {"preset": "baseline"},
        {"n": 16},
        {"steps": 20},
        {"trained_on": "b"},
        {"measured_on": "b"},
    ],
)
def test_what_differs_in_more_than_seeds_is_another_group(other) -> None:
    groups, _ = group_by_seed([run("/x/a", 0), run("/x/b", 1, **other)])
    assert len(groups) == 2


def test_the_same_run_twice_counts_once() -> None:
    first, second, copy = run("/x/a", 0), run("/x/b", 1), run("/y/a", 0)
    (group,), twice = group_by_seed([first, second, copy])
    assert group.runs == [first, second] and twice == [(copy, first)]


def test_unfinished_runs_are_in_no_group() -> None:
    assert group_by_seed([run("/x/a", state="unfinished", figures={})]) == ([], [])


def test_intervals() -> None:
    figures = {"l0": 4, "l0_ci": [3, 5.5], "kl_score": None, "kl_score_ci": None, "mse_ci": [1]}
    one = run("/x/a", figures=figures)
    assert one.value("l0") == 4.0 and one.interval("l0") == (3.0, 5.5)
    assert one.value("kl_score") is one.interval("kl_score") is one.interval("mse") is None
