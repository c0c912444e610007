"""A feature's strongest examples against a plain sort of all its activations."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cpsae.config import ExtractSettings
from cpsae.errors import StoreError
from cpsae.evaluation.examples import find_examples
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.stages.extract import extract
from cpsae.store import Store, open_store, write_store
from cpsae.store.statistics import as_float32

N, M = 24, 20


@pytest.fixture(scope="module")
def store(gemma: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("examples") / "acts.zarr"
    sizes = {"layer": 2, "tokens": 16, "vectors": 3000}
    settings = {"model": str(gemma), "dataset": str(corpus), "store": str(path), "device": "cpu"}
    extract(ExtractSettings.model_validate({**sizes, **settings}))
    return open_store(path)


def autoencoder(d: int) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(N, d, generator=generator), dim=1)
    weights = {"W_enc": w_dec.T.contiguous(), "b_enc": torch.full((N,), -0.3)}
    weights |= {"W_dec": w_dec, "b_dec": torch.zeros(d)}
    kind = load_kind("relu").from_constants({}, d, N)
    return SparseAutoencoder(weights, kind, Normalizer("layer"), n_enabled=M)


def test_strongest_examples_their_text_and_rates(store: Store) -> None:
    assert store.evaluation is not None
    part, sae = store.evaluation, autoencoder(store.d)
    rows = np.concatenate([as_float32(part.rows(chunk)) for chunk in part.chunks])
    latents = sae.encode(torch.from_numpy(rows)).numpy()
    fired = (latents > 0.01 * latents.max(axis=1, keepdims=True)).mean(axis=0)
    found = find_examples(sae, part, lambda token: f"<{token}>", shown=3, window=(2, 1))
    assert found, "random features of which none fires on 0.5 to 10 % of rows"
    for feature in found:
        number = feature.feature
        assert number < M
        assert feature.rate == pytest.approx(fired[number])
        strongest = np.sort(latents[:, number])[::-1][:3]
        given = [example.activation for example in feature.examples]
        assert given == pytest.approx(strongest[strongest > 0], abs=1e-6)
        row = int(latents[:, number].argmax())
        context, position = part.origin(row)
        tokens = part.tokens(range(context, context + 1))[0]
        first = feature.examples[0]
        assert first.token == f"<{tokens[position]}>"
        assert first.before == "".join(f"<{t}>" for t in tokens[max(0, position - 2) : position])
        assert first.after == "".join(f"<{t}>" for t in tokens[position + 1 : position + 2])
    labels = [feature.label for feature in found]
    assert len(labels) == len(set(labels))
    consistency = [feature.consistency for feature in found]
    assert consistency == sorted(consistency, reverse=True)


def test_a_store_without_tokens_is_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    part = open_store(write_store(tmp_path / "a.zarr", rows)).evaluation
    assert part is not None
    with pytest.raises(StoreError, match="holds no tokens"):
        find_examples(autoencoder(8), part, str)
