"""Which step rule a run takes."""

import torch

from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training.choose_rule import rule_for
from cpsae.training.dense_rule import Dense
from cpsae.training.rules import autograd
from cpsae.training.settings import FitSettings
from cpsae.training.sparse_rule import sparse

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def kind(name, **settings):
    return load_kind(name)(FitSettings(kind=name, **settings).method, RunPlan(7, 1000, steps=100))


def test_few_latents():
    few, many = kind("batchtopk", k=100), kind("batchtopk", k=100, k_start=2.0)
    for updates in (0, 99):
        few.updates = many.updates = updates
        assert rule_for(few, CPU) is sparse
        assert rule_for(many, CPU) is rule_for(few, CUDA) is autograd


def test_a_target_of_few():
    assert rule_for(kind("jumprelu", target_l0=50), CPU) is sparse


def test_many_latents():
    for name in ("relu", "competitive"):
        assert isinstance(rule_for(kind(name), CPU), Dense)
        assert rule_for(kind(name), CUDA) is autograd
    assert rule_for(kind("competitive", competition={"over": "active"}), CPU) is autograd
    assert rule_for(kind("jumprelu", target_l0=500), CPU) is autograd
