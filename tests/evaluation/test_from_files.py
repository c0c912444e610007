"""Every store metric of `cpsae evaluate` against float64 numpy from the files alone."""

import json

import by_files
import numpy as np
import pytest

from cpsae.stages.evaluate import evaluate

RUNS = [
    ("competitive", "layer", {}),
    ("competitive", "unit", {}),
    ("relu", "layer-variance", {}),
    ("relu", "none", {}),
    ("topk", "sqrt-d", {"k": 5}),
    ("batchtopk", "layer", {"k": 5}),
]


def written(made, **options):
    evaluate(made.run, device="cpu", **options)
    return json.loads((made.run / "evaluation.json").read_text())


@pytest.mark.parametrize(("kind", "normalize", "more"), RUNS)
@pytest.mark.parametrize("keep_bos", [False, True])
def test_every_metric_is_that_of_the_files(trained, kind, normalize, more, keep_bos):
    method = {"kind": kind, **more} | ({"growth": "none"} if kind != "competitive" else {})
    fitting = {"normalize": normalize, **method}
    made = trained("llama", fitting, keep_bos=keep_bos)
    sae, x = by_files.Autoencoder(made.run), by_files.held_out_rows(made.store)
    kept = np.sqrt((x**2).sum(1)) <= by_files.bound(made.store, 1.05)
    assert 20 < kept.sum() < len(x) - 20
    expected = by_files.ours(sae, x, kept)
    batches = by_files.contexts_of(made.store) // by_files.BATCH
    special = by_files.special_rows(made.store, [1, 2])
    assert batches.max() == 1 and special.sum() > (19 if keep_bos else 0)
    expected |= by_files.saebench(sae, x, batches, special)
    found = written(made)
    assert found["special_tokens"] == {"ids": [1, 2], "from": "store"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    figures = {k for k, v in found.items() if isinstance(v, float | int)}
    assert figures == {*expected, "evaluation_contexts"}


def test_the_end_of_a_fit_writes_the_same(trained):
    made = trained("llama")
    at_the_end = (made.run / "evaluation.json").read_bytes()
    assert written(made)["explained_variance_ci"]
    assert (made.run / "evaluation.json").read_bytes() == at_the_end
    summary = json.loads((made.run / "summary.json").read_text())
    assert not [name for name in summary if name.endswith("_ci") or "/" in name]


@pytest.mark.parametrize("contexts", [1, 7, 16, 1000])
def test_of_the_first_contexts_alone(trained, contexts):
    made = trained("llama")
    sae, x = by_files.Autoencoder(made.run), by_files.held_out_rows(made.store)
    of_contexts = by_files.contexts_of(made.store)
    kept = np.sqrt((x**2).sum(1)) <= by_files.bound(made.store, 1.05)
    first = of_contexts < contexts
    expected = by_files.ours(sae, x[first], kept[first])
    expected |= by_files.saebench(
        sae,
        x[first],
        of_contexts[first] // by_files.BATCH,
        by_files.special_rows(made.store, [1, 2])[first],
    )
    found = written(made, contexts=contexts)
    assert found["evaluation_contexts"] == min(contexts, of_contexts.max() + 1)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
