"""Neighbours and meetings of features against counts over a dense matrix."""

import numpy as np
import pytest
import torch
from dense_codes import codes_of, some_codes, table_of

from cpsae.dashboard import relations as module
from cpsae.dashboard.firings import Firings
from cpsae.dashboard.relations import Meetings, neighbours


def test_neighbours_have_the_largest_cosines(monkeypatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    w = torch.randn(30, 8, generator=torch.manual_seed(0), dtype=torch.float64)
    found, cosines = neighbours(w, 25)
    unit = (w / w.norm(dim=1, keepdim=True)).numpy()[:25]
    expected = unit @ unit.T - 3 * np.eye(25)
    order = np.argsort(-expected, axis=1)[:, :6]
    assert (found == order).all()
    assert cosines == pytest.approx(np.take_along_axis(expected, order, 1), abs=1e-6)


@pytest.mark.parametrize(("m", "columns"), [(1, 0), (3, 2)])
def test_of_few_features_all_others_are_neighbours(m, columns) -> None:
    found, cosines = neighbours(torch.eye(4), m)
    assert found.shape == cosines.shape == (m, columns)


def by_hand(mine, lists, feature):
    """Jaccard's index and the share of the feature's rows, of each other feature."""
    both = (mine[:, [feature]] & lists).sum(0).astype(float)
    either = mine[:, feature].sum() + lists.sum(0) - both
    jaccard = np.where(both >= 2, both / np.maximum(either, 1), 0)
    jaccard[feature] = 0
    return jaccard, both / max(1, mine[:, feature].sum())


@pytest.mark.parametrize("other", [False, True], ids=["fires with", "suppressed"])
def test_meetings_are_ranked_by_rows_in_common(other) -> None:
    a = some_codes()
    lists = (np.random.default_rng(1).random(a.shape) < 0.2) & (a == 0) if other else a > 0
    meetings = Meetings(Firings(codes_of(a)), table_of(lists))
    for feature in range(a.shape[1]):
        jaccard, share = by_hand(a > 0, lists, feature)
        found = meetings.of(feature)
        expected = sorted(jaccard[jaccard > 0], reverse=True)[:6]
        assert [jaccard[r.feature] for r in found] == pytest.approx(expected)
        assert [r.share for r in found] == pytest.approx([share[r.feature] for r in found])
    assert meetings.of(a.shape[1] - 1) == []


def test_of_many_rows_some_are_drawn(monkeypatch) -> None:
    monkeypatch.setattr(module, "_ENTRIES_LOOKED_AT", 1)
    a = some_codes(rows=4000)
    found = Meetings(Firings(codes_of(a)), table_of(a > 0)).of(10)
    _, share = by_hand(a > 0, a > 0, 10)
    for relation in found:  # of 64 rows
        assert abs(relation.share - share[relation.feature]) < 0.25
