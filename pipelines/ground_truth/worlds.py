"""Worlds of SAELens' `synthetic` module: which features there are, and how they fire."""

from pathlib import Path

import torch
from sae_lens.synthetic import (
    FoldedNormalMagnitudeConfig,
    HierarchyConfig,
    LinearMagnitudeConfig,
    LowRankCorrelationConfig,
    OrthogonalizationConfig,
    SyntheticModel,
    SyntheticModelConfig,
    ZipfianFiringProbabilityConfig,
)

FOLDER = "world"
"""Where generate.py keeps the world, beside the store."""


def _world(
    features: int, d: int, rates: tuple[float, float, float], trees: int, depth: int
) -> SyntheticModelConfig:
    """rates: of the most frequent and the rarest feature, and the exponent between them. Trees
    branch in four, siblings exclude each other, and a child fires only where its parent does."""
    return SyntheticModelConfig(
        num_features=features,
        hidden_dim=d,
        firing_probability=ZipfianFiringProbabilityConfig(
            max_prob=rates[0], min_prob=rates[1], exponent=rates[2]
        ),
        hierarchy=HierarchyConfig(
            total_root_nodes=trees,
            branching_factor=4,
            max_depth=depth,
            mutually_exclusive_portion=1.0,
            compensate_probabilities=True,
            scale_children_by_parent=True,
        ),
        mean_firing_magnitudes=LinearMagnitudeConfig(start=5.0, end=4.0),
        std_firing_magnitudes=FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
        correlation=LowRankCorrelationConfig(rank=25, correlation_scale=0.1),
        orthogonalization=OrthogonalizationConfig(num_steps=100, lr=3e-4),
        bias=0.5,
        seed=42,
    )


WORLDS = {
    "tiny": _world(512, 64, (0.4, 4e-3, 0.4), trees=16, depth=2),
    "small": _world(1024, 128, (0.4, 4e-3, 0.4), trees=32, depth=2),
    "synthsaebench-16k": _world(16384, 768, (0.4, 5e-4, 0.5), trees=128, depth=3),
}
"""small: the shape of SynthSAEBench-16k (two thirds of the features in trees) at an eighth of its
features, with rarest features so much more frequent as runs on a CPU are shorter."""


def make_world(name: str, device: str) -> SyntheticModel:
    """One of `WORLDS`, or what SAELens finds under a folder's or a hub's name, such as
    decoderesearch/synth-sae-bench-16k-v1."""
    return SyntheticModel.load_from_source(WORLDS.get(name, name), device=device)


def load_world(folder: Path, device: str) -> SyntheticModel:
    """The world that generate.py kept in `folder`."""
    return SyntheticModel.load_from_disk(folder / FOLDER, device=device)


def sample(world: SyntheticModel, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x (rows, d) and the features behind it (rows, features), a function of the seed alone on
    one kind of device: SAELens draws from torch's global generators."""
    torch.manual_seed(seed)
    x_BD, f_BF = world.sample_with_features(rows)
    return x_BD, f_BF
