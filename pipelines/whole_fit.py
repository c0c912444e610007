"""What a fit adds to its updates, and a sweep to its fits.

    python pipelines/whole_fit.py --d 576 --n 4608 --batch 2048 --presets topk,paper --rounds 3
    python pipelines/whole_fit.py --d 576 --n 576 --batch 1024 --sweep 8
    python pipelines/whole_fit.py --d 2304 --n 2304 --batch 2048 --waits

The first: process time of 500 steps of a whole fit (feed, figures, log and a checkpoint, as they
are by default; by difference of fits of 600 and 100 steps) against 500 bare updates on rows that
are at hand. The second: a sweep over so many seeds against a fit of each, 100 steps long, whose
files it compares. The third: the share of a fit's time in which its loop waits for a batch, all
threads at work. Rows are random numbers in bfloat16; all features are enabled.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import ml_dtypes
import numpy as np
import torch

import cpsae
from cpsae.bench.fit import trainable
from cpsae.bench.side_by_side import process_time
from cpsae.cli.memory import keep_freed_blocks
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import members, parse_axes

SHORT, LONG = 100, 600
SWEPT_STEPS = 100
WARM = 10
"""Batches after which waits count."""


def main() -> None:
    """One line of JSON for each preset."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--d", type=int, default=576)
    parser.add_argument("--n", type=int, default=4608)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--presets", default="topk,paper")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweep", type=int, default=0, metavar="RUNS")
    parser.add_argument("--waits", action="store_true")
    args = parser.parse_args()
    keep_freed_blocks()
    with tempfile.TemporaryDirectory(prefix="whole-fit-") as folder:
        store = _store(Path(folder) / "acts.zarr", args.d)
        for name in args.presets.split(","):
            asked = {"n_latents": args.n, "batch_size": args.batch, "growth": "none"}
            if args.waits:
                found = _waits(store, name, asked, args.rounds)
            elif args.sweep:
                found = _sweep_against_fits(store, name, asked, args.sweep, args.rounds)
            else:
                found = _fit_against_updates(store, name, asked, args.rounds)
            shape = {"preset": name, "d": args.d, "n": args.n, "batch": args.batch}
            print(json.dumps({**shape, **found}), flush=True)


def _store(path: Path, d: int) -> Path:
    """Three windows of eight chunks."""
    rows = np.random.default_rng(0).standard_normal((24 * 64 * 127, d), np.float32)
    cpsae.write_store(path, rows.astype(ml_dtypes.bfloat16), rows[:64].astype(ml_dtypes.bfloat16))
    return path


def _settings(name: str, asked: dict[str, int | str], **more: int) -> FitSettings:
    layers = {f"preset {name}": preset(name), "benchmark": {**asked, **more}}
    return resolve_fit(layers).settings


def _fit_seconds(store: Path, settings: FitSettings) -> float:
    with tempfile.TemporaryDirectory(dir=store.parent) as out:
        return process_time(lambda: cpsae.fit(store, settings, out=Path(out) / "run"))


def _fit_against_updates(
    store: Path, name: str, asked: dict[str, int | str], rounds: int
) -> dict[str, float]:
    ratios = []
    for _ in range(rounds):
        whole = [_fit_seconds(store, _settings(name, asked, steps=s)) for s in (SHORT, LONG)]
        bare = _bare_updates(store, name, asked)
        ratios.append(process_time(bare) / (whole[1] - whole[0]))
    return _spread(ratios)


def _waits(store: Path, name: str, asked: dict[str, int | str], rounds: int) -> dict[str, float]:
    """After the first batches, for which every fit waits."""
    shares = []
    for _ in range(rounds):
        watch = _Watch(cpsae.ActivationFeed.stream)
        with mock.patch.object(cpsae.ActivationFeed, "stream", watch.method()):
            _fit_seconds(store, _settings(name, asked, steps=SHORT))
        shares.append(watch.waited / (watch.ended - watch.began))
    return _spread(shares)


class _Watch:
    """How long the loop of a fit waited for its batches, in seconds."""

    def __init__(self, whole: Callable[..., Iterator[torch.Tensor]]) -> None:
        self._whole = whole
        self.waited = self.began = self.ended = 0.0

    def method(self) -> Callable[..., Iterator[torch.Tensor]]:
        """The feed's own `stream`, watched."""
        return lambda feed, **options: self._watched(self._whole(feed, **options))

    def _watched(self, batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        try:
            for number in range(SHORT):
                asked = time.perf_counter()
                batch = next(batches)
                self.ended = time.perf_counter()
                if number == WARM:
                    self.began = self.ended
                elif number > WARM:
                    self.waited += self.ended - asked
                yield batch
        finally:
            batches.close()  # type: ignore[attr-defined]


def _bare_updates(store: Path, name: str, asked: dict[str, int | str]) -> Callable[[], None]:
    """Updates SHORT to LONG of the same training, on batches that are at hand already."""
    part = cpsae.open_store(store).training
    batch = int(asked["batch_size"])
    feed = cpsae.ActivationFeed(part, batch, max_norm=0).stream()
    held = [next(feed) for _ in range(part.vectors // batch)]
    feed.close()
    trained = trainable(name, part.d, int(asked["n_latents"]), torch.device("cpu"))
    trained.optimizer.weights["b_enc"].zero_()

    def update(steps: range) -> None:
        for step in steps:
            trained.update(held[step % len(held)], 3e-4, measure=False)

    update(range(SHORT))
    return partial(update, range(SHORT, LONG))


def _sweep_against_fits(
    store: Path, name: str, asked: dict[str, int | str], runs: int, rounds: int
) -> dict[str, float | bool]:
    axes = parse_axes([f"seed={','.join(map(str, range(runs)))}"])
    swept = members(axes, lambda keys: _settings(name, asked, steps=SWEPT_STEPS, **keys))
    ratios, equal = [], True
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=store.parent) as folder:
            together, apart = Path(folder) / "together", Path(folder) / "apart"
            seconds = process_time(partial(cpsae.sweep, store, swept, out=together))
            fits = 0.0
            for one in swept:
                out = apart / one.folder
                fits += process_time(partial(cpsae.fit, store, one.settings, out=out))
                files = [place / one.folder / "sae.safetensors" for place in (together, apart)]
                equal &= files[0].read_bytes() == files[1].read_bytes()
        ratios.append(seconds / fits)
    return {**_spread(ratios), "equal": equal}


def _spread(ratios: list[float]) -> dict[str, float]:
    return {"ratio": statistics.median(ratios), "from": min(ratios), "to": max(ratios)}


if __name__ == "__main__":
    main()
