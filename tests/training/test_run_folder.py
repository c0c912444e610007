"""The small files of a run."""

from pathlib import Path

import numpy as np
import pytest

from cpsae.errors import DiskError, RunError
from cpsae.training.run_folder import MetricsLog, RunFolder, run_name
from cpsae.training.settings import FitSettings

LINES = ['{"step": 1}\n', '{"step": 10}\n', '{"step": 20}\n', '{"step": 30}\n']


def reopened(path, step):
    MetricsLog(path, step).close()
    return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(("step", "left"), [(0, 0), (1, 1), (19, 2), (20, 3), (99, 4)])
def test_the_log_is_cut_back_to_its_checkpoint(tmp_path, step, left):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(LINES))
    assert reopened(path, step) == LINES[:left]


@pytest.mark.parametrize("tail", ['{"step": 4', '{"step": 40}', "\0\0\0\n", "[]\n", "{}\n"])
def test_a_damaged_tail_is_dropped(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(LINES) + tail)
    assert reopened(path, 100) == LINES


def test_lines_are_there_at_once_and_hold_no_nan(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.append({"step": 1, "temperature": None})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "temperature": null}\n'
    with pytest.raises(ValueError, match="JSON"):
        log.append({"step": 2, "loss": float("nan")})
    log.close()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is full")
def test_a_full_disk_is_one_line(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.close()
    with open("/dev/full", "ab", buffering=0) as full:  # noqa: PTH123
        log._file = full
        with pytest.raises(DiskError, match="disk is full"):
            log.append({"step": 1})


def test_what_a_kill_leaves_is_no_stranger(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.123-abcd.tmp").write_text("{")
    run.refuse_foreign()
    run.tidy()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is no run"):
        run.refuse_foreign()
    with pytest.raises(RunError, match="is no run"):
        RunFolder(tmp_path / "thesis.tex").refuse_foreign()


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://b", "file:///tmp/x"])
def test_a_url_is_no_folder(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="expected a local folder"):
        RunFolder(url)
    assert not list(tmp_path.iterdir())


def test_a_name_says_settings_and_store(plain_store, make_store):
    settings = FitSettings()
    name = run_name("paper", settings, plain_store)
    assert name.startswith("paper-")
    int(name.removeprefix("paper-"), 16)
    assert len(name) == len("paper-") + 8
    assert run_name("paper", FitSettings(device="cpu", checkpoint_every=7), plain_store) == name
    assert run_name("paper", FitSettings(l1=0.5), plain_store) != name
    other = make_store(np.ones((100, 3), np.float32))
    assert run_name("paper", settings, other) != name
