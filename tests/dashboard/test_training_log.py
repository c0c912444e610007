"""What is read from a log of training."""

import json

from cpsae.dashboard.training_log import curves, enabled_at, read_log


def lines(count, **more):
    return [
        {"step": i, "loss": 1 / i, **{k: v(i) for k, v in more.items()}}
        for i in range(1, count + 1)
    ]


def test_a_curve_keeps_its_ends_and_is_not_long() -> None:
    log = lines(1000, l0=lambda i: i % 7, temperature=lambda _: None)
    found = curves(log)
    assert found["step"][0] == 1 and found["step"][-1] == 1000
    assert (
        len(found["step"]) <= 250 and sorted(found["step"], key=lambda s: s or 0) == found["step"]
    )
    assert found["loss"][-1] == 0.001 and len(found["l0"]) == len(found["step"])
    assert "temperature" not in found and "n_enabled" not in found


def test_numbers_that_are_none_are_left_out() -> None:
    log: list = [
        {"step": 1, "loss": float("nan")},
        {"step": 2, "loss": "x"},
        {"step": 3, "loss": 2},
    ]
    assert curves(log)["loss"] == [None, None, 2.0]
    assert curves([]) == {"step": []}


def test_features_are_enabled_at_the_first_line_that_has_them() -> None:
    log = [{"step": s, "n_enabled": n} for s, n in ((1, 2), (10, 2), (20, 5), (30, 6))]
    assert enabled_at(log, 8) == [0, 0, 20, 20, 20, 30, None, None]
    assert enabled_at(log, 3) == [0, 0, 20]
    assert enabled_at([], 2) == [None, None]


def test_lines_that_cannot_be_read_are_passed_over(tmp_path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_log(file) == []
    file.write_text(json.dumps({"step": 1}) + '\n\n[1]\n{"step": "2"}\n{"step": 3')
    assert read_log(file) == [{"step": 1}]
