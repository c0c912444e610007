"""`cpsae compare`: table, Markdown, JSON, picture, refusals."""

import subprocess
import sys

import pytest
from refusals import assert_refused
from run_files import write_run
from strict_json import read_strictly


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for seed, l0 in enumerate((20.0, 24.0)):
        name = f"topk/k=8,seed={seed}"
        write_run(folder / name, summary={"l0": l0, "explained_variance": 0.5}, seed=seed, k=8)
    write_run(folder / "base", "baseline", "relu", {"l0": 90.6, "explained_variance": 0.313})
    return folder


def test_table_and_picture(command, runs, tmp_path) -> None:
    done = command("compare", runs, "--out", tmp_path / "p.svg")
    assert done.code == 0, done.err
    title, headings, *rows = [line.split() for line in done.out.splitlines() if line.strip()]
    assert " ".join(title) == "held-out rows, mean ± standard deviation over seeds"
    assert headings[:6] == ["run", "preset", "seeds", "n", "steps", "l0"]
    assert rows[0][:6] == ["base", "baseline", "(relu)", "1", "32", "1,000"]
    assert rows[1][:8] == ["k=8", "topk", "2", "32", "1,000", "22", "±", "2.8"]
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    assert done.err == f"picture: {tmp_path / 'p.svg'}\n"
    each = command("compare", runs, "--each").out
    assert "k=8,seed=0" in each and "±" not in each


def test_markdown_and_json(command, runs) -> None:
    lines = command("compare", runs, "--markdown").out.splitlines()
    assert lines[1].startswith("| --- | --- | ---: |") and len(lines) == 4
    content = read_strictly(command("compare", runs, "--json").out)
    assert content.keys() == {"runs", "groups", "picture"} and content["picture"] is None
    assert [run["name"] for run in content["runs"]] == ["base", "k=8,seed=0", "k=8,seed=1"]
    spread = content["groups"][1]["figures"]["l0"]
    assert (spread["mean"], spread["low"], spread["high"]) == (22.0, 20.0, 24.0)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["empty"], 1, "empty: holds no run; give"),
        (["missing"], 1, "missing: no such folder; give"),
        (["runs", "--out", "p.pdf"], 2, r"--out p.pdf: expected a file name that ends in .svg or"),
        (["runs", "--markdown", "--json"], 2, "--markdown and --json: are two forms"),
        (["runs", "--columns", "l0, x"], 2, "--columns x: no run has this figure; there are"),
        ([], 2, "Missing argument 'RUN...'"),
    ],
)
def test_refusals(command, runs, tmp_path, monkeypatch, arguments, code, text) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert_refused(lambda: command("compare", *arguments), runs.parent, code, text)


def test_matplotlib_waits_until_there_is_a_picture(runs, tmp_path) -> None:
    program = (
        "import sys; from cpsae.cli.main import _run; sys.argv = ['cpsae', *sys.argv[1:]]; "
        "code = _run(); sys.exit(code or 'matplotlib' in sys.modules)"
    )
    for extra, expected in (((), 0), (("--out", str(tmp_path / "p.png")), 1)):
        arguments = [sys.executable, "-c", program, "compare", str(runs), *extra]
        assert subprocess.run(arguments, capture_output=True).returncode == expected
