"""How fast one update is, against the five matrix products that it cannot do without.

    OMP_NUM_THREADS=1 python pipelines/step_speed.py [d n batch]

Prints, for each kind, the products' process time over the update's: 1 would be an update that does
nothing else. Rounds of both are interleaved, so that what else the machine does hits both alike.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from cpsae.cli.memory import keep_freed_blocks
from cpsae.sae.initialization import initialize
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.step import Trainable

ROUNDS, UPDATES = 5, 4
PRESETS = ("paper", "baseline", "topk", "batchtopk", "jumprelu", "p-anneal", "gated")


def products(x: torch.Tensor, w: torch.Tensor) -> None:
    """Encoder and decoder, and the three of their backward pass."""
    f = x @ w.T
    x_hat = f @ w
    _gradient_f = x_hat @ w.T
    _gradient_w_dec = f.T @ x_hat
    _gradient_w_enc = f.T @ x


def trainable(name: str, d: int, n: int) -> Trainable:
    """All features enabled, as in most of a run."""
    layers = {"bench": {"growth": "none"}, f"preset {name}": preset(name)}
    settings = resolve_fit(layers).settings
    kind = load_kind(settings.kind)
    weights = initialize(kind.weights, d, n)
    return Trainable(
        weights, kind(settings.method, RunPlan(d, n, rows=10**9)), Normalizer("layer"), settings
    )


def seconds(work: Callable[[], object]) -> float:
    """Process time of one call."""
    began = time.process_time()
    for _ in range(UPDATES):
        work()
    return (time.process_time() - began) / UPDATES


def main(d: int, n: int, batch: int) -> None:
    """Measure and print."""
    keep_freed_blocks()  # as `cpsae fit` does
    x, w = torch.randn(batch, d), torch.randn(n, d)
    states = {name: trainable(name, d, n) for name in PRESETS}
    rows = [x[torch.randperm(batch)] for _ in range(UPDATES)]
    times: dict[str, list[float]] = {name: [] for name in ("products", *PRESETS)}
    for _ in range(ROUNDS + 1):
        times["products"].append(seconds(lambda: products(x, w)))
        for name, state in states.items():
            times[name].append(seconds(partial(state.update, rows[0], 3e-4, measure=False)))
    floor = sorted(times["products"][1:])
    print(f"d {d}, n {n}, batch {batch}: five products {floor[len(floor) // 2]:.3f} s")
    for name in PRESETS:
        ratios = sorted(p / t for p, t in zip(times["products"][1:], times[name][1:], strict=True))
        print(f"{name}: {ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:] or ("2304", "2304", "2048")))
