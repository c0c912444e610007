"""`cpsae evaluate` with a language model: what is printed, what is written, what is refused."""

import json

import pytest
from refusals import assert_refused

TRAINED = ("--steps", 20, "--batch-size", 64, "--device", "cpu")


@pytest.fixture
def run(command, store, tmp_path):
    """A finished run on a store of the tiny Gemma."""
    done = command("fit", "--store", store, "--out", tmp_path / "run", *TRAINED)
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_the_object_is_the_file(command, run) -> None:
    options = ("--model", "store", "--contexts", 3, "--device", "cpu")
    done = command("evaluate", run, *options, "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert content == json.loads((run / "evaluation.json").read_text())
    assert content["model"]["contexts"] == content["evaluation_contexts"] == 3
    for name in ("ce_loss_score", "kl_score", "ce_loss_clean", "kl_zero", "explained_variance"):
        low, high = content[f"{name}_ci"]
        assert low <= content[name] <= high
    assert "saebench/ce_loss_score" in content


def test_the_table_has_value_and_interval_on_one_line(command, run) -> None:
    lines = command("evaluate", run, "--device", "cpu").out.splitlines()
    content = json.loads((run / "evaluation.json").read_text())
    low, high = content["explained_variance_ci"]
    [line] = [line for line in lines if line.split()[:1] == ["explained_variance"]]
    value = content["explained_variance"]
    assert line.strip().split(maxsplit=2)[1:] == [f"{value:.4g}", f"[{low:.4g}, {high:.4g}]"]
    [line] = [line for line in lines if line.split()[:1] == ["dead"]]
    assert line.split()[1:] == [f"{content['dead']:.4g}"]
    names = [line.split()[0] for line in lines[1:]]
    assert names.index("evaluation_rows") < names.index("saebench/explained_variance")
    assert "saebench/cossim" in names and "ce_loss_score" not in names


def test_several_are_a_line_and_an_object_each(command, store, run, tmp_path) -> None:
    sweep = ("--sweep", "seed=0,1", "--out", tmp_path / "sweep")
    assert command("fit", "--store", store, *TRAINED, *sweep).code == 0
    options = ("--model", "store", "--contexts", 2, "--device", "cpu")
    done = command("evaluate", run, tmp_path / "sweep", *options, "--json")
    assert done.code == 0, done.err
    paths = [run, tmp_path / "sweep/seed=0", tmp_path / "sweep/seed=1"]
    content = [json.loads((path / "evaluation.json").read_text()) for path in paths]
    expected = [{"run": str(path), **own} for path, own in zip(paths, content, strict=True)]
    assert json.loads(done.out) == {"runs": expected}

    _, headings, *lines = command("evaluate", *paths[1:], "--device", "cpu").out.splitlines()
    assert headings.split() == ["run", "l0", "explained_variance", "dead"]
    assert [line.split()[0] for line in lines] == [str(path) for path in paths[1:]]
    assert command("evaluate").code == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--model", "no/such/model/here"), "no such file or folder; check the path"),
        (("--dtype", "float32"), "--dtype: is of the language model; give --model too"),
        (("--device", "tpu"), "device 'tpu': expected auto, cpu, cuda or cuda:I"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, run, tmp_path, options, text) -> None:
    assert_refused(lambda: command("evaluate", run, *options), tmp_path, 1, text)


def test_fewer_contexts_than_asked_for_are_told(command, run) -> None:
    done = command("evaluate", run, "--contexts", 100_000, "--device", "cpu")
    there = json.loads((run / "evaluation.json").read_text())["evaluation_contexts"]
    assert f"has {there} held-out contexts; all were taken" in " ".join(done.err.split())


def test_a_number_of_contexts_is_above_zero(command, run) -> None:
    assert command("evaluate", run, "--contexts", 0).code == 2
