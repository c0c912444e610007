import json
import math

import pytest
import torch

from cpsae.errors import CpsaeError, SettingsError
from cpsae.sae.normalization import NAMES, PER_ROW, InputError, Normalizer

D = 24


def rows(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, D, generator=generator) * 30 + 7


def normalizer(name, x):
    norms = torch.linalg.vector_norm(x.double(), dim=-1)
    return Normalizer.from_statistics(
        name,
        D,
        mean_squared_norm=norms.square().mean().item(),
        mean_norm=norms.mean().item(),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (50,), (4, 9)])
def test_undoes_itself(name, shape):
    x = rows(*shape)
    n = normalizer(name, x)
    back = n.denormalize(n.normalize(x), like=x)
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-4)
    assert n.normalize(x.bfloat16()).dtype == torch.float32


def test_what_each_makes():
    x = rows(400)

    def norms(name):
        return torch.linalg.vector_norm(normalizer(name, x).normalize(x), dim=-1)

    torch.testing.assert_close(norms("layer"), torch.ones(400))
    torch.testing.assert_close(norms("layer-variance"), torch.full((400,), math.sqrt(D)))
    assert norms("unit").square().mean().item() == pytest.approx(1, rel=1e-5)
    assert norms("sqrt-d").mean().item() == pytest.approx(math.sqrt(D), rel=1e-5)
    layer = normalizer("layer-variance", x).normalize(x)
    torch.testing.assert_close(
        layer, torch.nn.functional.layer_norm(x, (D,), eps=0), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(normalizer("none", x).normalize(x), x)


@pytest.mark.parametrize("name", PER_ROW)
def test_per_row_needs_the_originals(name):
    n = Normalizer(name)
    with pytest.raises(InputError, match=r"pass the raw vectors .* like=x") as caught:
        n.denormalize(torch.zeros(2, D))
    assert isinstance(caught.value, CpsaeError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InputError, match="shape"):
        n.denormalize(torch.zeros(2, D), like=torch.zeros(3, D))


@pytest.mark.parametrize("name", NAMES)
def test_constant_rows_stay_finite_and_come_back(name):
    x = torch.stack([torch.zeros(D), torch.full((D,), 3.0), torch.full((D,), 0.1)])
    n = Normalizer(name)
    normal = n.normalize(x)
    assert torch.isfinite(normal).all()
    torch.testing.assert_close(n.denormalize(normal, like=x), x)


@pytest.mark.parametrize("name", NAMES)
def test_json(name):
    n = normalizer(name, rows(9))
    assert Normalizer.from_json(json.loads(json.dumps(n.to_json()))) == n


def test_bad_values():
    with pytest.raises(ValueError, match="'batch' is not one of"):
        Normalizer("batch")
    with pytest.raises(SettingsError, match="gives no scale"):
        Normalizer.from_statistics("unit", D, mean_squared_norm=0.0, mean_norm=0.0)
    with pytest.raises(ValueError, match="not above 0"):
        Normalizer.from_json({"name": "unit", "scale": 0})
    with pytest.raises(KeyError):
        Normalizer.from_json({"name": "unit"})
