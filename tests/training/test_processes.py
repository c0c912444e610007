"""What several processes train together, against what one process trains."""

import json
import sys
from pathlib import Path

import pytest
import torch
from processes import ended, start
from safetensors.torch import load_file

from cpsae.errors import SettingsError
from cpsae.sae.group import Alone
from cpsae.sae.kind import Kind
from cpsae.training.facts import find_facts
from cpsae.training.member import new_trainable
from cpsae.training.settings import FitSettings

HERE = Path(__file__).parent
EACH = {"steps": 60, "batch_size": 33, "n_latents": 47, "device": "cpu", "checkpoint_every": 30}
FEW: dict[str, object] = {"k": 4, "aux_k": 5}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "paper": ("paper", {}),
    "of any row": ("paper", {"utilisation": "any"}),
    "baseline": ("baseline", {}),
    "relu": ("relu", {}),
    "topk": ("topk", FEW),
    "batchtopk": ("batchtopk", {**FEW, "min_fire_every": 1}),
    "sparse batchtopk": ("batchtopk", {"k": 2, "min_fire_every": 3}),
    "without fired": ("batchtopk", {"k": 2, "min_fire_every": 0, "k_start": 4}),
    "jumprelu": ("jumprelu", {"target_l0": 4}),
    "sparse jumprelu": ("jumprelu", {"target_l0": 4, "input_gradient": True, "bandwidth": 0.1}),
    "p-anneal": ("p-anneal", {}),
    "gated": ("gated", {}),
    "lca-batchtopk": ("lca-batchtopk", {"k": 4}),
    "matryoshka": ("matryoshka-batchtopk", {"k": 4}),
    "frontier": ("frontier", {"k": 4}),
    "revived": ("batchtopk", {"k": 2, "revive_every": 200}),
    "of active ones": ("paper", {"competition.over": "active"}),
    "centred": ("topk", {**FEW, "center": True, "clip": 0.3, "growth": "hybrid"}),
    "nested and growing": ("matryoshka-batchtopk", {"k": 4, "growth": "hybrid"}),
    "born": ("paper", {"new_features": "residual"}),
    "bfloat16": ("batchtopk", {"k": 4, "precision": "bfloat16"}),
}
SHARED = {"data": {"processes": 2}, "features": {"processes": 2, "split": "features"}}
ROUNDED = 1e-4
"""Relative: 60 updates of sums in another order."""
ROUNDED_TO_BFLOAT16 = 0.03
"""Sums in another order there become another value, and a latent another's: figures stay near, but
single weights do not."""
TIMES = ("seconds", "rows_per_second")


@pytest.fixture(scope="module")
def trained(plain_store, tmp_path_factory):
    """The folders of all runs, of one process and of two that share data or features."""
    folders = {}
    for split in ("", *SHARED):
        each = {**EACH, "split": split} if split else EACH
        cases = json.dumps([[name, kind, {**each, **own}] for name, (kind, own) in CASES.items()])
        folders[split] = tmp_path_factory.mktemp(f"by-{split}")
        script, count = HERE / "fits_in_processes.py", 2 if split else 1
        done = ended(start([script, plain_store.path, folders[split], cases], count))
        said = [f"{one.returncode}: {one.stderr[-2000:]}" for one in done]
        assert said == ["0: "] * count, "\n\n".join(said)
    return folders


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("split", SHARED)
@pytest.mark.parametrize("name", CASES)
def test_two_train_what_one_does(trained, name, split):
    """Every figure of every logged step, each weight at the end, and how good that is."""
    one, two = trained[""] / name, trained[split] / name
    close = ROUNDED_TO_BFLOAT16 if name == "bfloat16" else ROUNDED
    logged, expected = lines(two), lines(one)
    assert [line.keys() for line in logged] == [line.keys() for line in expected]
    for line, other in zip(logged, expected, strict=True):
        figures = {k: v for k, v in other.items() if k not in TIMES and v is not None}
        assert {k: line[k] for k in figures} == pytest.approx(figures, rel=close, abs=close / 10)
    weights, others = (load_file(run / "sae.safetensors") for run in (two, one))
    for key, weight in others.items() if name != "bfloat16" else ():
        gap = (weights[key] - weight).abs().max()
        assert gap <= close * max(1.0, float(weight.abs().max())), key
    summary, other = (json.loads((run / "summary.json").read_text()) for run in (two, one))
    assert summary["flops"] == other["flops"] and summary["rows"] == other["rows"]
    assert summary["mse"] == pytest.approx(other["mse"], rel=close)
    assert sorted(map(str, (p.relative_to(two) for p in two.rglob("*")))) == sorted(
        map(str, (p.relative_to(one) for p in one.rglob("*")))
    )


def test_they_say_how_many_they_are(trained):
    for split, expected in {"": {}, **SHARED}.items():
        machine = json.loads((trained[split] / "topk/config.json").read_text())["machine"]
        assert {k: v for k, v in machine.items() if k in ("processes", "split")} == expected


def test_dead_latents_were_among_it(trained):
    """Else nothing was seen of their loss."""
    assert any(line["aux"] > 0 for line in lines(trained[""] / "topk"))


def test_a_batch_is_looked_at_as_a_whole():
    """By three, whose shares are not equal."""
    for done in ended(start([HERE / "group_in_processes.py"], 3)):
        assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)


def test_a_dictionary_is_looked_at_as_a_whole():
    """By three, who do not hold as many features."""
    for done in ended(start([HERE / "dictionary_in_processes.py"], 3)):
        assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)


class OfTwo(Alone):
    size = 2


class Split(OfTwo):
    splits = True


def test_a_kind_that_says_nothing_of_groups_is_refused(plain_store, monkeypatch):
    """Kinds of other packages look at a batch as they like."""
    settings = FitSettings(kind="relu", batch_size=64)
    facts = find_facts(plain_store.training, settings, torch.device("cpu"))
    relu = sys.modules[new_trainable(settings, facts, 12, torch.device("cpu")).kind.__module__]
    monkeypatch.setattr(relu.ReLU, "works_in_groups", Kind.works_in_groups)
    monkeypatch.setattr(relu.ReLU, "works_split", Kind.works_split)
    with pytest.raises(SettingsError, match="kind relu: does not say that .* take one of .*topk"):
        new_trainable(settings, facts, 12, torch.device("cpu"), group=OfTwo())
    with pytest.raises(SettingsError, match="not say that it can be split .* one of .*topk"):
        new_trainable(settings, facts, 12, torch.device("cpu"), group=Split())


def test_each_needs_a_feature_from_the_beginning(plain_store):
    settings = FitSettings(n_latents=7, batch_size=64)
    facts = find_facts(plain_store.training, settings, torch.device("cpu"))
    with pytest.raises(
        SettingsError, match="n_latents 7: 2 processes cannot share .* at first .1."
    ):
        new_trainable(settings, facts, 12, torch.device("cpu"), group=Split())
