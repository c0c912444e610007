"""A tracker that fails, hangs or chatters leaves the run as it is: stand-ins for wandb."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cpsae.events import Note
from cpsae.stages.fit import fit
from cpsae.tracking import process
from cpsae.tracking.sidecar import reason
from cpsae.training.settings import FitSettings

SETTINGS = FitSettings(kind="topk", k=3, batch_size=32, log_every=5, steps=60, device="cpu")
WORKING = """
import json, sys, time
class Settings:
    def __init__(self, **values): pass
class Run:
    url = "http://here/run"
    summary = {}
    def log(self, values, step):
        print("chatter")
        with open("logged", "a") as file: file.write(json.dumps([step, len(values)]) + chr(10))
    def finish(self): pass
def init(**values): return Run()
"""
STAND_INS = {
    "cannot be imported": ("raise ImportError('no libfoo')", "ImportError: no libfoo"),
    "begins nothing": (
        WORKING + "def init(**v): raise RuntimeError('not logged in, key=topsecret')",
        r"RuntimeError: not logged in, key=\*\*\*",
    ),
    "fails on the way": (
        WORKING + "def log(self, values, step):\n    if step > 30: raise OSError('gone')\n"
        "    print(step)\nRun.log = log",
        "OSError: gone",
    ),
    "ends its process": (WORKING + "def init(**v): sys.exit('bye')", "SystemExit: bye"),
    "is killed": (
        WORKING + "import os\ndef init(**v): os.kill(os.getpid(), 9)",
        "it ended with -9",
    ),
}


@pytest.fixture
def stand_in(place, monkeypatch):
    """stand_in(text) puts a module wandb before the real one, for processes too."""

    def put(text: str) -> None:
        folder = place / "modules"
        folder.mkdir()
        (folder / "wandb.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setenv("WANDB_API_KEY", "topsecret")

    return put


def tracked(store, out):
    """The notes of a run that is shown in wandb."""
    heard: list = []
    fit(store.path, SETTINGS, out=out, track="wandb", on_event=heard.append)
    return [event for event in heard if isinstance(event, Note)]


def warnings(notes):
    return [note.text for note in notes if note.kind == "warning"]


def assert_like_one_without(store, run) -> None:
    plain = fit(store.path, SETTINGS, out="plain").path
    weights, others = load_file(run / "sae.safetensors"), load_file(plain / "sae.safetensors")
    assert all(weights[name].equal(others[name]) for name in others)
    lengths = [len((p / "metrics.jsonl").read_text().splitlines()) for p in (run, plain)]
    assert lengths[0] == lengths[1] == 13


@pytest.mark.parametrize("how", STAND_INS)
def test_one_warning_and_the_run_is_whole(plain_store, place, stand_in, how) -> None:
    content, expected = STAND_INS[how]
    stand_in(content)
    [warning] = warnings(tracked(plain_store, "run"))
    assert re.match(rf"wandb stopped \({expected}\); the run is not touched", warning), warning
    assert_like_one_without(plain_store, place / "run")


def test_one_that_hangs(plain_store, place, stand_in, monkeypatch) -> None:
    monkeypatch.setattr(process, "_FINISHED_SECONDS", 1.0)
    stand_in(WORKING + "def init(**v):\n    print(len(open('pid', 'w').write('x') * 'x'))\n"
             "    while True: time.sleep(1)")  # fmt: skip
    [warning] = warnings(tracked(plain_store, "run"))
    assert warning.startswith("wandb has not taken everything yet; process ")
    assert_like_one_without(plain_store, place / "run")
    os.kill(int(warning.split("process ")[1].split()[0]), 9)


def test_what_failed_is_handed_on_later(plain_store, place, stand_in) -> None:
    stand_in(WORKING + "import os\nif not os.path.exists('well'): raise ImportError")
    assert len(warnings(tracked(plain_store, "run"))) == 1
    Path("well").touch()
    notes = tracked(plain_store, "run")
    assert warnings(notes) == [] and notes[-1].text == "wandb: http://here/run"
    steps = [json.loads(line)[0] for line in (place / "logged").read_text().splitlines()]
    assert steps == [1, *range(5, 65, 5), 60]  # the last twice: the summary by itself


def test_its_chatter_goes_nowhere(plain_store, place, stand_in, capfd) -> None:
    stand_in(WORKING)
    assert warnings(tracked(plain_store, "run")) == []
    captured = capfd.readouterr()
    assert captured.out == captured.err == "" and (place / "logged").exists()


def test_a_training_that_is_killed_is_shown_to_its_last_line(plain_store, place, stand_in) -> None:
    """Its process reads on until the log's end, and then ends too."""
    stand_in(WORKING)
    child = os.fork()
    if child == 0:

        def die(event):
            if getattr(event, "done", 0) == 35:
                os.kill(os.getpid(), 9)

        fit(plain_store.path, SETTINGS, out="run", track="wandb", on_event=die)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == 9
    state = place / "run/trackers/wandb.json"
    limit = time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_text())["step"] == 35):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_secrets_are_not_told(monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    error = ValueError("https://x/?write_token=abc123&y=1 with hf_abc\nmore")
    assert reason(error) == "ValueError: https://x/?write_token=***&y=1 with ***"
