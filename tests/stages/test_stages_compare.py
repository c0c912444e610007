"""Runs found, read and put beside each other; what the files say is read by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from run_files import write_run

import cpsae
from cpsae.errors import RunError, SettingsError
from cpsae.stages.compare import compare
from cpsae.stages.fit import fit
from cpsae.stages.sweep import sweep
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

RELEASED = Path(__file__).parent.parent / "data/runs-0.1"
SMALL = {"steps": 20, "batch_size": 32, "n_latents": 24, "device": "cpu", "lr": 2e-3}


def settings(**values):
    return FitSettings(**{**SMALL, **values})


@pytest.fixture(scope="module")
def runs(plain_store, tmp_path_factory):
    """`paper`, and a sweep of batchtopk over k and seed."""
    folder = tmp_path_factory.mktemp("runs")
    fit(plain_store.path, settings(), out=folder / "paper")
    axes = parse_axes(["k=2,4,12", "seed=0,1"])
    chosen = members(axes, lambda values: settings(kind="batchtopk", **values))
    sweep(plain_store.path, chosen, out=folder / "btk", preset="batchtopk")
    return folder


def by_hand(run):
    files = (run / name for name in ("summary.json", "evaluation.json"))
    return {k: v for f in files for k, v in json.loads(f.read_text()).items()}


def test_runs_sweeps_and_folders_of_both(runs):
    heard = []
    compared = compare(runs, on_event=heard.append)
    names = ["paper", *(f"k={k},seed={seed}" for k in (2, 4, 12) for seed in (0, 1))]
    assert sorted(compared.runs) == sorted(names)
    assert list(compared.runs) == [*names[1:], names[0]]  # btk, then paper; 12 after 4
    for run in compared.runs.values():
        on_disk = by_hand(run.path)
        for figure, value in run.figures.items():
            assert value == on_disk[figure], figure
        assert {"l0", "explained_variance", "steps", "rows", "decoder_cosine"} <= run.figures.keys()
        assert (run.n, run.steps, run.measured_on) == (24, 20, on_disk["store_identity"])
    assert [group.name for group in compared.groups] == ["k=2", "k=4", "k=12", "paper"]
    values = [by_hand(runs / f"btk/k=4,seed={seed}")["l0"] for seed in (0, 1)]
    spread = compared.groups[1].spread("l0")
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.std == pytest.approx(np.std(values, ddof=1))
    assert heard == []  # the store has no language model: nothing to advise


def test_it_takes_names_in_any_form_and_each_run_once(runs):
    one = compare(str(runs / "paper"))
    assert list(one.runs) == ["paper"]
    several = compare([runs / "btk/k=2,seed=0", runs / "btk", str(runs)])
    assert len(several.runs) == 7 and next(iter(several.runs)) == "k=2,seed=0"
    assert list(cpsae.compare(several.runs["paper"].path, progress=False).runs) == ["paper"]


def test_each_run_a_row(runs):
    headings, rows = compare(runs, each=True).table()
    assert "seeds" not in headings and len(rows) == 7
    headings, rows = compare(runs).table()
    assert [row[headings.index("seeds")] for row in rows] == ["2", "2", "2", "1"]
    assert "±" in rows[0][headings.index("l0")] and "±" not in rows[3][headings.index("l0")]


def test_more_columns(runs):
    headings, rows = compare(runs, columns=["mse", "l0", "initial_loss"]).table()
    assert headings[-2:] == ["mse", "initial_loss"] and headings.count("l0") == 1
    assert rows[-1][-2] == f"{by_hand(runs / 'paper')['mse']:.4g}"
    with pytest.raises(SettingsError, match="--columns nothing: no run has this figure; there are"):
        compare(runs, columns=["nothing"])


def test_json_is_what_the_table_shows(runs, tmp_path):
    content = compare(runs, tmp_path / "new/p.svg").as_json()
    assert json.loads(json.dumps(content)) == content
    assert content["picture"] == str(tmp_path / "new/p.svg")
    assert [group["runs"] for group in content["groups"]][0] == ["k=2,seed=0", "k=2,seed=1"]
    described = {run["name"]: run for run in content["runs"]}
    assert described["paper"]["figures"]["l0"] == by_hand(runs / "paper")["l0"]
    assert described["paper"]["settings"]["temperature.base"] == 0.1
    assert compare(runs).as_json()["picture"] is None


def test_the_picture_is_the_same_again_and_has_a_label_a_series(runs, tmp_path):
    for name in ("a.svg", "b.svg", "c.PNG"):
        compare(runs, tmp_path / name)
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert b">batchtopk</text>" in first and b">paper (competitive)</text>" in first
    assert (tmp_path / "c.PNG").read_bytes().startswith(b"\x89PNG")


def test_evaluation_wins_and_has_what_the_summary_has_not(tmp_path):
    figures = {"l0": 30.0, "ce_loss_score": 0.9, "ce_loss_score_ci": [0.8, 0.95]}
    write_run(tmp_path / "a", summary={"l0": 20.0, "initial_loss": 1.0}, evaluation=figures)
    run = compare(tmp_path).runs["a"]
    assert run.value("l0") == 30.0 and run.value("initial_loss") == 1.0
    assert run.interval("ce_loss_score") == (0.8, 0.95)
    assert not {"density", "store_identity"} & run.figures.keys()


def heard_of(*paths):
    heard = []
    compare(paths, on_event=heard.append)
    return [note.text for note in heard]


def test_an_evaluation_that_somebody_edited_is_refused(tmp_path):
    run = write_run(tmp_path / "run", summary={"l0": 20.0})
    (run / "evaluation.json").write_text('{"store_identity": 0.5}')
    with pytest.raises(RunError, match=r"store_identity is 0.5; `cpsae evaluate .*` mends it"):
        compare(run)


def test_how_to_get_what_is_not_there(tmp_path):
    for number in range(5):
        write_run(tmp_path / f"r{number}", summary={"l0": 2.0}, model={"id": "m"}, k=number)
    write_run(tmp_path / "r5", summary={"l0": 2.0}, model={"id": "m"}, k=5).joinpath(
        "evaluation.json"
    ).write_text('{"ce_loss_score": 0.5}')
    [text] = heard_of(tmp_path)
    told, advice = text.split("; ")
    assert told == "no ce_loss_score yet: r0, r1, r2 and 2 more"
    assert advice == "`cpsae evaluate RUN --model store` measures it"


def test_other_stores_are_told(tmp_path):
    write_run(tmp_path / "a", summary={"l0": 2.0})
    write_run(tmp_path / "b", summary={"l0": 2.0}, evaluation={"store_identity": "b" * 64})
    [text] = heard_of(tmp_path)
    assert "the store measured on (aaaaaaaa in 1, bbbbbbbb in 1)" in text
    assert "trained on" not in text


def test_what_is_not_finished_is_listed(runs, tmp_path):
    write_run(tmp_path / "begun", steps=70)
    folder = write_run(tmp_path / "s/k=9", k=9).parent
    write_run(tmp_path / "s/k=8", summary={"l0": 2.0}, k=8)
    row = {"folder": "k=9", "values": {}, "summary": None, "error": "diverged"}
    (folder / "sweep.json").write_text(json.dumps({"keys": ["k"], "members": [row]}))
    compared = compare([tmp_path, runs / "paper"])
    states = {name: run.state for name, run in compared.runs.items()}
    assert states == {
        "begun": "unfinished",
        "k=8": "finished",
        "k=9": "diverged",
        "paper": "finished",
    }
    headings, rows = compared.table()
    assert [row[0] for row in rows] == ["k=8", "paper", "begun (unfinished)", "k=9 (diverged)"]
    assert dict(zip(headings, rows[2], strict=True))["steps"] == "70"
    assert heard_of(tmp_path)[0].startswith("not finished: begun; the command that began a run")
    assert [run.figures for run in compare(tmp_path / "begun").runs.values()] == [{}]


def test_runs_of_0_1():
    compared = compare(RELEASED)
    assert list(compared.runs) == ["baseline", "batchtopk", "paper", "topk"]
    run = compared.runs["topk"]
    assert (run.n, run.steps, run.settings["order_seed"]) == (24, 60, 5)
    assert run.value("explained_variance") == by_hand(RELEASED / "topk")["explained_variance"]


def test_what_cannot_be_compared(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, text in (
        (tmp_path / "nowhere", "nowhere: no such folder; give runs"),
        (tmp_path / "empty", "empty: holds no run; give a folder that `cpsae fit` wrote"),
    ):
        with pytest.raises(RunError, match=text):
            compare(path)
    run = write_run(tmp_path / "x/run", summary={"l0": 1.0})
    with pytest.raises(
        SettingsError, match=r"--out p.pdf: expected a file name that ends in \.svg"
    ):
        compare(run, "p.pdf")
    for name in ("evaluation.json", "summary.json", "config.json"):
        (run / name).write_text('{"l0": ')
        with pytest.raises(RunError, match=rf"{name}: is not readable JSON.*; ") as refused:
            compare(tmp_path / "x")
        assert "\n" not in str(refused.value)
    (run / "config.json").write_text('{"settings": 3, "store": 4, "facts": {}}')
    with pytest.raises(RunError, match="is no run; its config.json is not of `cpsae fit`"):
        compare(run)


def test_a_picture_of_nothing(tmp_path):
    write_run(tmp_path / "begun")
    write_run(tmp_path / "silent", summary={"l0": 0.0, "explained_variance": 0.0})
    heard = []
    compare(tmp_path, tmp_path / "p.svg", on_event=heard.append)
    assert "not in the picture, without an L0 above 0: silent" in [note.text for note in heard]
    assert b"no run has this figure yet" in (tmp_path / "p.svg").read_bytes()
