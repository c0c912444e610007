"""The table's texts, and what makes a comparison unfair."""

from pathlib import Path

import pytest

from cpsae.reporting.runs import Group, Run
from cpsae.reporting.table import hindrances, markdown, table


def run(name="a", seed=0, state="finished", n=2304, steps=4882, store="a" * 64, **figures):
    settings = {"seed": seed}
    return Run(
        Path(name), "baseline", "relu", settings, n, steps, store, store, True, state, figures
    )


def test_a_row_a_group_and_one_for_what_is_unfinished() -> None:
    groups = [
        Group("one", [run(l0=90.61234, explained_variance=-0.065, flops=1.5e15)]),
        Group("two", [run(l0=10, cosine=0.5), run(seed=1, l0=14, cosine=0.75)]),
    ]
    headings, rows = table(groups, [("three", run(state="diverged"))])
    # what nobody has is left out, but for what can still be measured
    assert headings == [
        *("run", "preset", "seeds", "n", "steps", "l0", "explained_variance", "cosine"),
        *("ce_loss_score", "kl_score", "flops"),
    ]
    method = ["2,304", "4,882"]
    assert rows == [
        ["one", "baseline (relu)", "1", *method, "90.61", "-0.065", "", "", "", "1.5e+15"],
        ["two", "baseline (relu)", "2", *method, "12 ± 2.8", "", "0.625 ± 0.18", "", "", ""],
        ["three (diverged)", "baseline (relu)", "", *method, "", "", "", "", "", ""],
    ]
    assert table(groups[:1], [])[0][:4] == ["run", "preset", "n", "steps"]


def test_markdown() -> None:
    lines = markdown(["run", "preset", "l0"], [["a|b", "topk", "3"]]).splitlines()
    assert lines == ["| run | preset | l0 |", "| --- | --- | ---: |", "| a\\|b | topk | 3 |"]


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"n": 576}, "n (2,304 in 2, 576 in 1)"),
        ({"steps": 100}, "steps (4,882 in 2, 100 in 1)"),
        ({"store": "b" * 64}, "the store trained on (aaaaaaaa in 2, bbbbbbbb in 1)"),
        ({"rows": 5}, "training rows (10 in 2, 5 in 1)"),
        ({"evaluation_rows": 7}, "rows measured (20 in 2, 7 in 1)"),
    ],
)
def test_what_is_not_alike_is_told(other, text) -> None:
    alike = {"rows": 10, "evaluation_rows": 20}
    assert hindrances([run(**alike), run(seed=1, **alike)]) is None
    told = hindrances([run(**alike), run(**alike), run(**{**alike, **other})])
    assert told is not None and text in told and "\n" not in told
