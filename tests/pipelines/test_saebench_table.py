"""SAEBench's figures beside ours."""

from side_by_side import flat, table


def test_a_row_for_each_figure_with_its_difference() -> None:
    groups = {
        "sparsity": {"l0": 20.0, "l1": 3.0},
        "reconstruction_quality": {"mse": 4.0},
        "token_stats": {"total_tokens_eval_reconstruction": 4096},
    }
    theirs = flat(groups)
    assert theirs == {"l0": 20.0, "l1": 3.0, "mse": 4.0}
    rows = table(theirs, {"saebench/l0": 20.5, "saebench/l1": 3.0, "mse": 1.0}).splitlines()[2:]
    assert rows == [
        "| l0 | 20 | 20.5 | 2.5e-02 |",
        "| l1 | 3 | 3 | 0.0e+00 |",
        "| mse | 4 | | |",
    ]
