"""SAELens trains on a store of cpsae, saves, and its autoencoder becomes a run beside ours.

    python pipelines/converted/beside_ours.py STORE --kinds topk,batchtopk --k 40 --out DIR [RUN...]

Each kind is trained by SAELens' own SAETrainer with its defaults, on batches as `cpsae fit` takes
them, and saved by its own `save_inference_model` in DIR/KIND; `cpsae convert` makes DIR/runs/KIND
of it, measured on the store's held-out rows. The table is `cpsae compare`'s, of these and of the
runs given. What is there already is not made again.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer

import cpsae
from cpsae.store import Store
from cpsae.store.bound import norm_bound

NORM_BATCHES = 100
"""That SAELens estimates its scale of rows from; they are not trained on."""


def train(store: Store, kind: str, asked: argparse.Namespace, out: Path) -> None:
    """One autoencoder by SAELens, saved in `out`."""
    shared: dict[str, Any] = {
        "d_in": store.d,
        "d_sae": asked.n or store.d,
        "device": "cpu",
        "normalize_activations": "expected_average_only_in",
        "metadata": metadata(store),
    }
    configs: dict[str, Callable[[], Any]] = {
        "standard": lambda: StandardTrainingSAEConfig(**shared, l1_coefficient=asked.l1),
        "topk": lambda: TopKTrainingSAEConfig(**shared, k=asked.k),
        "batchtopk": lambda: BatchTopKTrainingSAEConfig(**shared, k=asked.k),
    }
    config = configs[kind]()
    torch.manual_seed(asked.seed)
    sae = get_sae_training_class(config.architecture())[0](config)
    trainer = SAETrainerConfig(
        total_training_samples=asked.steps * asked.batch,
        train_batch_size_samples=asked.batch,
        lr_end=3e-4,
        logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=NORM_BATCHES,
    )
    SAETrainer(trainer, sae, batches(store, asked.batch)).fit().save_inference_model(out)


def batches(store: Store, batch: int) -> Iterator[torch.Tensor]:
    """Raw rows (batch, d), float32."""
    bound = float(norm_bound(store.training, 10))
    for rows in cpsae.ActivationFeed(store.training, batch, seed=0, norm_bound=bound):
        yield rows.float()


def metadata(store: Store) -> SAEMetadata:
    """What the store knows, by SAELens' names."""
    hook, model = store.manifest.hook, store.manifest.model
    contexts = store.manifest.contexts
    return SAEMetadata(
        model_name=Path(model.id).name if model else None,
        hook_name=f"blocks.{hook.layer}.hook_{hook.name}" if hook else None,
        context_size=contexts.tokens if contexts else None,
        seqpos_slice=[contexts.first_position or None, None] if contexts else [None],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, convert, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("runs", nargs="*", help="of cpsae, to put beside them")
    parser.add_argument("--kinds", default="topk,batchtopk", help="standard, topk, batchtopk")
    parser.add_argument("--k", type=int, default=40)
    parser.add_argument("--l1", type=float, default=5.0)
    parser.add_argument("--n", type=int, help="latents; by default d")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    store = cpsae.open_store(asked.store)
    converted = []
    for kind in asked.kinds.split(","):
        saved, run = asked.out / kind, asked.out / "runs" / kind
        if not (saved / "sae_weights.safetensors").exists():
            train(store, kind, asked, saved)
        if not (run / "config.json").exists():
            cpsae.convert(saved, run, store=asked.store)
        converted.append(run)
    compared = cpsae.compare([*asked.runs, *converted], asked.out / "comparison.svg")
    print(compared.markdown())


if __name__ == "__main__":
    main()
