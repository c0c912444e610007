"""A world with known features, and a cpsae store of its activations.

    python pipelines/ground_truth/generate.py OUT --world small

OUT/world is the world as SAELens saves it, OUT/store.zarr the store, OUT/truth.npz the true
features and which of them are on in each held-out row. Needs SAELens (README.md).
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sae_lens.synthetic import SyntheticModel
from truth import Truth
from worlds import FOLDER, WORLDS, make_world, sample

import cpsae

BATCH = 4096
HELD_OUT_SEED, TRAINING_SEED = 2**41, 2**42
"""Each batch has a seed of its own; they count from here. Those of generated.py are below."""


def rows_of(world: SyntheticModel, rows: int, path: Path, dtype: str) -> npt.NDArray[np.floating]:
    """Training rows, written to a file as they are made: they may be more than memory holds."""
    shape = (rows, world.cfg.hidden_dim)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    for number, first in enumerate(range(0, rows, BATCH)):
        x_BD, _ = sample(world, BATCH, TRAINING_SEED + number)
        out[first : first + BATCH] = x_BD[: rows - first].cpu().numpy()
        if number % 50 == 49:
            print(f"{first + BATCH:,} of {rows:,} rows", flush=True)
    return out


def held_out(
    world: SyntheticModel, rows: int, dtype: str
) -> tuple[npt.NDArray[np.floating], Truth]:
    """Held-out rows and what is on in them."""
    x = np.empty((rows, world.cfg.hidden_dim), dtype)
    counts, features = [], []
    for number, first in enumerate(range(0, rows, BATCH)):
        x_BD, f_BF = sample(world, BATCH, HELD_OUT_SEED + number)
        keep = min(BATCH, rows - first)
        x[first : first + keep] = x_BD[:keep].cpu().numpy()
        row, feature = np.nonzero(f_BF[:keep].cpu().numpy() > 0)
        counts.append(np.bincount(row, minlength=keep))
        features.append(feature.astype(np.int32))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    directions = world.feature_dict.feature_vectors.detach().float().cpu()
    return x, Truth(directions, starts, np.concatenate(features))


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to make")
    names = ", ".join(WORLDS)
    parser.add_argument("--world", default="small", help=f"{names}, a folder, or a hub's name")
    parser.add_argument("--vectors", type=int, default=2_000_000, help="training rows")
    parser.add_argument("--held-out", type=int, default=100_000, help="rows to measure on")
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True)
    world = make_world(asked.world, asked.device)
    world.save(asked.out / FOLDER)
    evaluation, truth = held_out(world, asked.held_out, asked.dtype)
    truth.save(asked.out)
    print(f"{len(truth.directions_FD):,} features, {truth.l0:.1f} of them on in a row")
    temporary = asked.out / "rows.npy"
    training = rows_of(world, asked.vectors, temporary, asked.dtype)
    cpsae.write_store(
        asked.out / "store.zarr",
        training,
        evaluation,
        store_dtype=asked.dtype,
        description=f"SAELens synthetic world {asked.world}",
    )
    temporary.unlink()


if __name__ == "__main__":
    main()
