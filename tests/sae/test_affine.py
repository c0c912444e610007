"""The encoder's product in padded rows, against plain ones in float64."""

import pytest
import torch

from cpsae.sae.affine import affine, row_stride


@pytest.mark.parametrize("m", (1, 15, 16, 17, 100))
@pytest.mark.parametrize("grad", (False, True))
def test_it_is_the_product_for_any_number_of_features(m: int, grad: bool) -> None:
    torch.manual_seed(m)
    x_BD, w_MD, b_M = torch.randn(7, 5), torch.randn(m, 5, requires_grad=True), torch.randn(m)
    with torch.set_grad_enabled(grad):
        found = affine(x_BD, w_MD, b_M)
    wanted = x_BD.double() @ w_MD.detach().double().T + b_M.double()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    assert found.shape == (7, m) and found.requires_grad == grad


def test_rows_begin_at_cache_lines() -> None:
    with torch.no_grad():
        found = affine(torch.randn(4, 3), torch.randn(17, 3), torch.randn(17))
    assert found.stride() == (32, 1)
    assert [row_stride(m) for m in (1, 16, 17)] == [16, 16, 32]


def test_one_row_and_more_dimensions_are_served() -> None:
    w_MD, b_M = torch.randn(5, 3), torch.randn(5)
    with torch.no_grad():
        for x in (torch.randn(3), torch.randn(2, 4, 3)):
            torch.testing.assert_close(affine(x, w_MD, b_M), x @ w_MD.T + b_M)
