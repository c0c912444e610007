"""Each library's own trainer on the same batches.

Names: B rows, D dimensions, N features; x is raw rows over the library's scale.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from dictionary_learning.trainers import (
    BatchTopKTrainer,
    JumpReluTrainer,
    StandardTrainer,
    TopKTrainer,
)
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

import cpsae
from cpsae.store import Store
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.schedule import PAPER_STEPS

STEERED_BY = {"relu": "l1", "topk": "k", "batchtopk": "k", "jumprelu": "target_l0"}
"""What sets L0 in each kind that all three libraries have. `l1` is for vectors of unit mean square
and unit decoder norms, and is converted to a library's own scale."""


@dataclass(frozen=True)
class Task:
    """What is to be trained."""

    kind: str
    value: float
    """Of what steers L0."""
    seed: int
    n: int
    steps: int
    batch: int


@dataclass(frozen=True)
class Data:
    """A store, and its statistics over the rows that are trained on."""

    store: Store
    bound: float
    """Rows with a larger norm are left out."""
    unit_scale: float
    """Divided by it, rows have a mean square norm of 1."""
    sqrt_d_scale: float
    """Divided by it, rows have a mean norm of sqrt(d)."""

    def batches(self, batch: int, scale: float) -> Iterator[Tensor]:
        """Training batches (B, D) in the order that `cpsae fit` takes them."""
        feed = cpsae.ActivationFeed(self.store.training, batch, seed=0, norm_bound=self.bound)
        for rows in feed:
            yield rows.float() / scale


@dataclass(frozen=True)
class Trained:
    """An autoencoder of any library."""

    scale: float
    raw: Callable[[Tensor], Tensor]
    """x (B, D) -> f (B, N) after the ReLU, before latents are chosen."""
    encode: Callable[[Tensor], Tensor]
    """x (B, D) -> a (B, N) by the library's own rule of inference."""
    decode: Callable[[Tensor], Tensor]


def train_cpsae(
    task: Task, data: Data, out: Path, own: Mapping[str, Any] = MappingProxyType({})
) -> Trained:
    """Its presets as they are, but for one scale for all rows, which the others need too, and for
    settings of one's own."""
    layers = {
        "--set": own,
        "peers": {
            STEERED_BY[task.kind]: task.value if task.kind == "relu" else int(task.value),
            "n_latents": task.n,
            "steps": task.steps,
            "batch_size": task.batch,
            "seed": task.seed,
            "normalize": "unit",
        },
        "preset": preset(task.kind),
    }
    cpsae.fit(data.store.path, resolve_fit(layers).settings, out=out, preset=task.kind)
    sae = cpsae.load(out)
    # Its own normaliser divides by the scale that it found, so it is given raw rows.
    return Trained(1.0, lambda x: sae.latents(x).raw, sae.encode, sae.decode)


def train_saelens(task: Task, data: Data, out: Path) -> Trained:  # noqa: ARG001
    """SAETrainer with its defaults: learning rate 3e-4, no warm-up; rows of mean norm sqrt(d), as
    its `expected_average_only_in` makes them."""
    d = data.store.d
    shared: dict[str, Any] = {"d_in": d, "d_sae": task.n, "device": "cpu"}
    configs: dict[str, Callable[[], Any]] = {
        # ||e||^2 is d times what it is at unit scale, |a| sqrt(d) times.
        "relu": lambda: StandardTrainingSAEConfig(**shared, l1_coefficient=task.value * d**0.5),
        "topk": lambda: TopKTrainingSAEConfig(**shared, k=int(task.value)),
        "batchtopk": lambda: BatchTopKTrainingSAEConfig(**shared, k=int(task.value)),
        "jumprelu": lambda: JumpReLUTrainingSAEConfig(
            **shared, jumprelu_sparsity_loss_mode="quadratic", target_l0=task.value
        ),
    }
    config = configs[task.kind]()
    torch.manual_seed(task.seed)
    sae = get_sae_training_class(config.architecture())[0](config)
    trainer_config = SAETrainerConfig(
        total_training_samples=task.steps * task.batch,
        train_batch_size_samples=task.batch,
        lr_end=3e-4,
        logger=LoggingConfig(log_to_wandb=False),
    )
    batches = data.batches(task.batch, data.sqrt_d_scale)
    trained = SAETrainer(trainer_config, sae, batches).fit().eval()

    def raw(x: Tensor) -> Tensor:
        _, hidden_pre = trained.encode_with_hidden_pre(x)
        return torch.relu(hidden_pre)

    def encode(x: Tensor) -> Tensor:
        if task.kind != "batchtopk":
            return torch.as_tensor(trained.encode(x))
        f = raw(x)  # it is saved as a JumpReLU with this threshold
        return f.masked_fill(f <= trained.topk_threshold, 0)

    return Trained(data.sqrt_d_scale, raw, encode, trained.decode)


def train_dictionary_learning(task: Task, data: Data, out: Path) -> Trained:  # noqa: ARG001
    """Its trainers with their defaults; rows of unit mean square, as its `trainSAE` makes them.
    What it counts in thousands of steps is shortened as cpsae shortens its own warm-up."""
    scale = min(1.0, task.steps / PAPER_STEPS)
    shared: dict[str, Any] = {
        "steps": task.steps,
        "activation_dim": data.store.d,
        "dict_size": task.n,
        "layer": 0,
        "lm_name": "store",
        "seed": task.seed,
        "warmup_steps": round(1000 * scale),
        "device": "cpu",
    }
    penalty = {"sparsity_warmup_steps": round(2000 * scale)}
    chosen = {"threshold_start_step": round(1000 * scale)}
    trainers: dict[str, Callable[[], Any]] = {
        "relu": lambda: StandardTrainer(**shared, **penalty, l1_penalty=task.value),
        "topk": lambda: TopKTrainer(**shared, **chosen, k=int(task.value)),
        "batchtopk": lambda: BatchTopKTrainer(**shared, **chosen, k=int(task.value)),
        "jumprelu": lambda: JumpReluTrainer(**shared, **penalty, target_l0=task.value),
    }
    trainer = trainers[task.kind]()
    batches = data.batches(task.batch, data.unit_scale)
    for step in range(task.steps):
        trainer.update(step, next(batches))
    sae = trainer.ae.eval()

    def raw(x: Tensor) -> Tensor:
        return torch.relu(sae.encoder(x - sae.b_dec))

    return Trained(data.unit_scale, raw, sae.encode, sae.decode)


LIBRARIES: dict[str, Callable[[Task, Data, Path], Trained]] = {
    "cpsae": train_cpsae,
    "saelens": train_saelens,
    "dictionary_learning": train_dictionary_learning,
}
