"""One update of other libraries' trainers, where they are installed, on the same rows."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Update = Callable[[], object]
K = 32
"""As in cpsae's presets."""


def peers(d: int, n: int, x_BD: Tensor) -> dict[str, Update]:
    """By library and kind; nothing of a library that is not installed."""
    found: dict[str, Update] = {}
    for package, make in _LIBRARIES.items():
        if find_spec(package) is not None:
            found |= make(d, n, x_BD)
    return found


def _saelens(d: int, n: int, x_BD: Tensor) -> dict[str, Update]:
    from sae_lens import (
        BatchTopKTrainingSAEConfig,
        StandardTrainingSAEConfig,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.training.sae_trainer import SAETrainer

    shared: dict[str, Any] = {"d_in": d, "d_sae": n, "device": x_BD.device.type}
    configs = {
        "SAELens standard": StandardTrainingSAEConfig(**shared, l1_coefficient=1.0),
        "SAELens topk": TopKTrainingSAEConfig(**shared, k=K),
        "SAELens batchtopk": BatchTopKTrainingSAEConfig(**shared, k=K),
    }
    settings = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=len(x_BD),
        device=x_BD.device.type,
        lr_end=3e-4,
        logger=LoggingConfig(log_to_wandb=False),
    )

    def update_of(config: Any) -> Update:
        sae = get_sae_training_class(config.architecture())[0](config)
        trainer = SAETrainer(settings, sae, iter(()))
        return lambda: trainer._train_step(sae=trainer.sae, sae_in=x_BD)

    return {name: update_of(config) for name, config in configs.items()}


def _dictionary_learning(d: int, n: int, x_BD: Tensor) -> dict[str, Update]:
    from dictionary_learning.trainers import BatchTopKTrainer, StandardTrainer, TopKTrainer

    shared: dict[str, Any] = {
        "steps": 10**6,
        "activation_dim": d,
        "dict_size": n,
        "layer": 0,
        "lm_name": "",
        "device": x_BD.device.type,
    }
    trainers = {
        "dictionary_learning standard": StandardTrainer(**shared),
        "dictionary_learning topk": TopKTrainer(**shared, k=K),
        "dictionary_learning batchtopk": BatchTopKTrainer(**shared, k=K),
    }

    def update_of(trainer: Any) -> Update:
        return lambda: trainer.update(1, x_BD)

    return {name: update_of(trainer) for name, trainer in trainers.items()}


def _sparsify(d: int, n: int, x_BD: Tensor) -> dict[str, Update]:
    from sparsify import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    sae = SparseCoder(d, SparseCoderConfig(num_latents=n, k=K), device=x_BD.device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=3e-4)

    def update() -> None:
        """As its trainer does: its own default optimizer, signum, is not timed."""
        sae(x_BD).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        sae.set_decoder_norm_to_unit_norm()

    return {"sparsify topk": update}


_LIBRARIES: dict[str, Callable[[int, int, Tensor], dict[str, Update]]] = {
    "sae_lens": _saelens,
    "dictionary_learning": _dictionary_learning,
    "sparsify": _sparsify,
}
