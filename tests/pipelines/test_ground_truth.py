"""The measures of pipelines/ground_truth against counts by hand and brute force."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from truth import Detection, Truth, cosines, mcc, uniqueness

from cpsae.sae.initialization import unit_rows


def test_mcc_is_that_of_the_best_matching() -> None:
    generator = torch.Generator().manual_seed(0)
    decoder, directions = (torch.randn(5, 3, generator=generator) for _ in range(2))
    found = cosines(decoder, directions)
    expected = (unit_rows(decoder) @ unit_rows(directions).T).abs()
    assert torch.allclose(found.float(), expected, atol=1e-6)
    best = max(
        math.fsum(float(expected[i, j]) for i, j in enumerate(order)) / 5
        for order in itertools.permutations(range(5))
    )
    assert mcc(found) == pytest.approx(best, abs=1e-6)


def test_mcc_counts_the_matched_alone_where_sides_differ() -> None:
    latents = torch.eye(4)
    assert mcc(cosines(latents[:2], latents)) == pytest.approx(1)
    assert mcc(cosines(-latents, latents[:3])) == pytest.approx(1)


def test_a_zero_decoder_row_is_near_nothing() -> None:
    assert cosines(torch.zeros(1, 3), torch.eye(3)).tolist() == [[0.0, 0.0, 0.0]]


def test_uniqueness_counts_features_that_are_nearest() -> None:
    directions = torch.eye(3)
    decoder = torch.stack([directions[0], directions[0] * 2, directions[2]])
    assert uniqueness(cosines(decoder, directions)) == pytest.approx(2 / 3)


def test_detection_by_hand() -> None:
    """Latent 0 tells feature 1, latent 1 feature 0, latent 2 never fires."""
    detection = Detection(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.6, 0.5]]))
    a = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    on = torch.tensor([[False, True], [False, False], [True, True], [True, False]])
    detection.update(a[:3], on[:3])
    detection.update(a[3:], on[3:])
    result = detection.result()
    # latent 0: 1 of 2 firings right, 1 of 2 of the feature's found; latent 1: 1 of 2, 1 of 2.
    assert result["precision"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert result["recall"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert result["f1"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert result["l0"] == pytest.approx(4 / 4)
    assert result["dead"] == 1


def test_truth_goes_to_a_file_and_back(tmp_path: Path) -> None:
    on = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], bool)
    row, feature = np.nonzero(on)
    starts = np.concatenate([[0], np.cumsum(on.sum(1))])
    Truth(torch.eye(3), starts, feature.astype(np.int32)).save(tmp_path)
    truth = Truth.load(tmp_path)
    assert truth.l0 == pytest.approx(6 / 4)
    assert truth.fires(0, 4).numpy().tolist() == on.tolist()
    assert truth.fires(1, 2).numpy().tolist() == on[1:3].tolist()
