"""Train one kind of autoencoder on a world, once for each seed.

    python pipelines/ground_truth/train.py WORLD --preset batchtopk --set k=25 --seeds 0,1 --out DIR

WORLD is a folder that generate.py made; the runs are DIR/NAME/seed-0 and so on, ordinary runs of
`cpsae fit`. The same command continues what was interrupted. With --samples the rows are made as
they are needed instead of read from the store, so that a run may take more of them than a disk
holds; that needs SAELens (README.md), the rest cpsae alone.
"""

import argparse
from pathlib import Path
from typing import Any

import cpsae
from cpsae.config.resolve import RECIPE, parse_assignments
from cpsae.training.loop import Stopped
from cpsae.training.recipes import fit_recipe, preset, resolve_fit
from cpsae.training.settings import FitSettings

BASE = {"normalize": "unit", "batch_size": 1024, "lr": 3e-4}
"""SynthSAEBench's batch and learning rate. One scale for all rows: a row's own would move the
latents away from the true directions. Presets, --recipe and --set win over it."""


def settings_of(asked: argparse.Namespace, seed: int) -> FitSettings:
    """What one run is asked for. The seed is of the initial weights and of the order of rows."""
    layers: dict[str, dict[str, Any]] = {
        "--seeds": {"seed": seed, "order_seed": seed},
        "--set": parse_assignments(asked.set),
    }
    if asked.recipe:
        layers[f"{RECIPE} {asked.recipe}"] = fit_recipe(asked.recipe)
    layers[f"preset {asked.preset}"] = preset(asked.preset)
    layers["train.py"] = BASE
    settings = resolve_fit(layers).settings
    if asked.samples:
        return settings.model_copy(update={"steps": asked.samples // settings.batch_size})
    return settings


def train(world: Path, settings: FitSettings, out: Path, preset: str, generated: bool) -> Any:
    """One run; its summary."""
    if generated:
        from generated import fit_generated

        return fit_generated(world, settings, out, preset)
    result = cpsae.fit(world / "store.zarr", settings, out=out, preset=preset)
    assert not isinstance(result, Stopped), "nobody asked it to stop"
    return result.summary


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path, help="a folder that generate.py made")
    parser.add_argument("--preset", default="batchtopk", help="as of `cpsae fit`")
    parser.add_argument("--recipe", type=Path, help="as of `cpsae fit`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", default="0", help="one run each, like 0,1,2")
    parser.add_argument("--samples", type=int, help="rows to make while training")
    parser.add_argument("--name", help="of the folder in --out; by default preset and --set")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    name = asked.name or " ".join([asked.preset, *asked.set])
    for seed in map(int, asked.seeds.split(",")):
        out = asked.out / name / f"seed-{seed}"
        settings = settings_of(asked, seed)
        summary = train(asked.world, settings, out, asked.preset, bool(asked.samples))
        shown = {key: summary[key] for key in ("l0", "explained_variance", "dead")}
        print(f"{out}: " + ", ".join(f"{key} {value:.4g}" for key, value in shown.items()))


if __name__ == "__main__":
    main()
