import math
from types import SimpleNamespace

import torch

from cpsae.sae.initialization import initialize as initialize_by_name
from cpsae.sae.kind import STANDARD, Spec


def initialize(*arguments, specs=STANDARD, **options):
    return SimpleNamespace(**initialize_by_name(specs, *arguments, **options))


def test_tied():
    b_dec = torch.arange(6.0)
    p = initialize(6, 10, "tied", b_dec, seed=3)
    assert torch.equal(p.w_enc, p.w_dec)
    assert p.w_enc.data_ptr() != p.w_dec.data_ptr()
    torch.testing.assert_close(torch.linalg.vector_norm(p.w_dec, dim=1), torch.ones(10))
    assert torch.equal(p.b_dec, b_dec)
    assert p.b_dec.data_ptr() != b_dec.data_ptr()
    assert not p.b_enc.any()
    assert not initialize(6, 10, "tied").b_dec.any()


def test_uniform():
    p = initialize(16, 3000, "uniform", torch.ones(16), seed=3)
    bound = 1 / math.sqrt(16)
    assert p.w_enc.abs().max() <= bound
    assert abs(p.w_enc.std().item() - bound / math.sqrt(3)) < 0.01
    torch.testing.assert_close(torch.linalg.vector_norm(p.w_dec, dim=1), torch.ones(3000))
    assert not torch.allclose(p.w_enc, p.w_dec)
    assert not p.b_dec.any()
    assert not p.b_enc.any()


def test_seed_decides_alone():
    torch.manual_seed(1)
    first = initialize(4, 5, seed=7)
    torch.manual_seed(2)
    again, other = initialize(4, 5, seed=7), initialize(4, 5, seed=8)
    assert torch.equal(first.w_dec, again.w_dec)
    assert not torch.equal(first.w_dec, other.w_dec)
    assert all(t.dtype == torch.float32 for t in vars(first).values())


def test_other_weights_begin_as_their_spec_says():
    specs = {**STANDARD, "log_threshold": Spec("n", start=-2.5), "scale": Spec("", start=1.0)}
    p = initialize(4, 5, specs=specs)
    assert torch.equal(p.log_threshold, torch.full((5,), -2.5))
    assert p.scale == 1.0
