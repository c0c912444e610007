"""`cpsae report`, and the report that `cpsae fit` ends with."""

import json

import pytest

FIT = ("--preset", "topk", "--steps", 10, "--batch-size", 64, "--n-latents", 24, "--device", "cpu")
ALONE = (*FIT, "--set", "k=4")


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    from cpsae.stages.fit import fit
    from cpsae.training.recipes import preset, resolve_fit

    options = {"steps": "10", "batch_size": "64", "n_latents": "24", "k": "4", "device": "cpu"}
    settings = resolve_fit({"option": options, "preset topk": preset("topk")}).settings
    return fit(finished, settings, out=tmp_path_factory.mktemp("run") / "run", preset="topk").path


def test_a_page_is_written_and_said_where(command, run, tmp_path) -> None:
    page = tmp_path / "page.html"
    done = command("report", run, "--out", page, "--rows", "0.1k", "--no-logits")
    assert (done.code, done.out.split(" (")[0]) == (0, str(page))
    assert page.read_text().startswith("<!doctype html>")
    said = command("report", run, "--out", page, "--rows", "100", "--no-logits", "--json")
    content = json.loads(said.out)
    assert content["path"] == str(page) and content["bytes"] == page.stat().st_size
    assert content["runs"][0]["features"] == 24 and content["runs"][0]["logits"] is False


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--rows", "many"], 2, "--rows: 'many' is not a number like 100k"),
        (["--rows", "-1"], 2, "--rows"),
        (["--out", "page.svg"], 2, "--out page.svg: expected a file name that ends in .html"),
        (["--model", "/nowhere/model"], 1, "there is no such file or folder"),
        (["--store", "/nowhere"], 1, "/nowhere"),
    ],
)
def test_wrong_inputs_are_one_line(command, run, more, code, says) -> None:
    done = command("report", run, *more)
    assert done.code == code and says in done.err
    assert "Traceback" not in done.err and done.err.count("error:") == 1
    assert not (run / "report.html").exists()


def test_what_is_no_run_is_refused(command, tmp_path) -> None:
    done = command("report", tmp_path)
    assert done.code == 1 and "holds no run" in done.err


def test_a_fit_ends_with_its_report_unless_asked_not_to(command, finished, tmp_path) -> None:
    run = tmp_path / "run"
    first = command("fit", "--store", finished, "--out", run, *ALONE, "--no-report")
    assert first.code == 0 and not (run / "report.html").exists()
    again = command("fit", "--store", finished, "--out", run, *ALONE)
    assert again.code == 0 and f"its features, with examples: {run}/report.html" in again.err
    assert (run / "report.html").exists()
    assert "its features" not in command("fit", "--store", finished, "--out", run, *ALONE).err


def test_a_sweep_ends_with_one_report_and_can_be_resumed(command, finished, tmp_path) -> None:
    out = tmp_path / "sweep"
    arguments = ("fit", "--store", finished, "--out", out, *FIT, "--sweep", "k=2,4")
    assert command(*arguments).code == 0
    assert (out / "report.html").exists() and not (out / "k=2" / "report.html").exists()
    assert command(*arguments).code == 0


def test_a_report_that_fails_fails_no_fit(command, finished, tmp_path, monkeypatch) -> None:
    def broken(*_args, **_options):
        raise ZeroDivisionError("of a defect\nwith two lines")

    monkeypatch.setattr("cpsae.stages.report.report", broken)
    done = command("fit", "--store", finished, "--out", tmp_path / "run", *ALONE, "--json")
    assert done.code == 0 and json.loads(done.out)["steps"] == 10
    assert "warning: no report.html: of a defect" in done.err and "Traceback" not in done.err


def test_where_the_tokenizer_is_not_here_there_is_none(
    command, finished, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("cpsae.stages.report.model_at_hand", lambda *_: None)
    done = command("fit", "--store", finished, "--out", tmp_path / "run", *ALONE, "-v")
    assert done.code == 0 and "no report: " in done.err
    assert not (tmp_path / "run" / "report.html").exists()
