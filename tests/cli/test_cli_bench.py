"""`cpsae bench`: tables for people and JSON for programs."""

import json

import pytest
from refusals import assert_refused
from tiny import LAYER

from cpsae.bench import peers

FIT = ("bench", "fit", "--shape", "8x64", "--batch-size", "16", "--rounds", "1")


@pytest.fixture(autouse=True)
def no_peers(monkeypatch):
    monkeypatch.setattr(peers, "_LIBRARIES", {})


def test_a_table(command) -> None:
    done = command(*FIT, "--presets", "baseline, topk")
    assert done.code == 0
    assert "fit, d = 8, n = 64: floor is five products" in done.out
    assert "cpsae baseline" in done.out and "cpsae topk" in done.out


def test_json(command) -> None:
    done = command(*FIT, "--shape", "4x40", "--presets", "baseline", "--json")
    content = json.loads(done.out)
    assert [table["setting"]["n"] for table in content["tables"]] == [64, 40]
    assert content["threads"] == 1 and content["torch"]


def test_another_model(command, gemma, corpus) -> None:
    done = command(
        *(
            "bench",
            "extract",
            "--model",
            gemma,
            "--dataset",
            corpus,
            "--layer",
            LAYER,
            "--tokens",
            "16",
        ),
        *("--vectors", "1000", "--rounds", "1", "--json"),
    )
    assert json.loads(done.out)["tables"][0]["setting"]["model"] == str(gemma)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "fit", "--shape", "576"), "expected DxN"),
        (("bench", "fit", "--shape", "0x4"), "expected DxN"),
        (("bench", "extract", "--model", "x"), "--dataset"),
        (("bench", "nothing"), "extract"),
    ],
)
def test_a_wrong_command_line(command, arguments, words) -> None:
    done = command(*arguments)
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1


def test_an_unknown_preset(command, tmp_path) -> None:
    assert_refused(lambda: command(*FIT, "--presets", "nonsense"), tmp_path, 1, "nonsense")
