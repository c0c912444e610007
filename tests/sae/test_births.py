"""Where features begin: directions drawn in proportion to squared length, orthogonal, and levels
that a share of the rows is above; numpy and counting."""

import numpy as np
import pytest
import torch

from cpsae.sae.births import draw_directions, firing_level


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(count=40, d=8, seed=1):
    return torch.randn(count, d, generator=generator(seed))


@pytest.mark.parametrize(
    ("candidates", "d", "count"), [(40, 8, 20), (5, 8, 12), (40, 8, 3), (1, 4, 2)]
)
def test_directions_are_orthogonal_in_blocks(candidates, d, count):
    found = draw_directions(rows(candidates, d), count, generator())
    assert found.shape == (count, d)
    block = min(candidates, d)
    for first in range(0, count, block):
        part = found[first : first + block].double()
        torch.testing.assert_close(
            part @ part.T, torch.eye(len(part), dtype=torch.float64), atol=1e-5, rtol=0
        )


def test_the_first_of_a_block_is_a_row_and_each_keeps_its_side():
    x = rows()
    found = draw_directions(x, 8, generator())
    cosines = torch.nn.functional.normalize(x, dim=1) @ found.T
    first = cosines[:, 0].max()
    assert first.item() == pytest.approx(1, abs=1e-5)
    for column in range(1, 8):  # Gram-Schmidt on some row gives this column, with its sign
        left = x.double().clone()
        basis = found[:column].double()
        left -= left @ basis.T @ basis
        fits = (torch.nn.functional.normalize(left, dim=1) @ found[column].double()).max()
        assert fits.item() == pytest.approx(1, abs=1e-4)


def test_rows_are_drawn_in_proportion_to_their_squared_length():
    x = torch.eye(4) * torch.tensor([[1.0], [2.0], [3.0], [0.0]])
    counts = np.zeros(4)
    for seed in range(4000):
        [direction] = draw_directions(x, 1, generator(seed))
        counts[int(direction.argmax())] += 1
    np.testing.assert_allclose(counts / 4000, np.array([1, 4, 9, 0]) / 14, atol=0.03)


def test_rows_of_zeros_alone_still_give_directions():
    found = draw_directions(torch.zeros(10, 4), 6, generator())
    assert found.isfinite().all()


@pytest.mark.parametrize("share", [1 / 64, 0.1, 0.5])
def test_a_share_of_the_rows_is_above_the_level(share):
    x, directions = rows(640), draw_directions(rows(640), 8, generator())
    level = firing_level(x, directions, share)
    above = (x @ directions.T > level).double().mean(0)
    np.testing.assert_allclose(above.numpy(), share, atol=1 / 640 + 1e-9)


def test_the_same_generator_draws_the_same():
    one, other = (draw_directions(rows(), 5, generator(seed)) for seed in (3, 3))
    assert torch.equal(one, other)
    assert not torch.equal(one, draw_directions(rows(), 5, generator(4)))


def test_levels_of_many_directions_are_those_of_a_few(monkeypatch):
    x, directions = rows(100), draw_directions(rows(), 20, generator())
    whole = firing_level(x, directions, 0.1)
    monkeypatch.setattr("cpsae.sae.births._DIRECTIONS_AT_ONCE", 7)
    torch.testing.assert_close(firing_level(x, directions, 0.1), whole)
