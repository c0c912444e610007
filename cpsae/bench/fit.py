"""An update of training against the five matrix products that a dense one cannot do without."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from cpsae.bench.peers import peers
from cpsae.bench.side_by_side import Table, Work, lines, measure, stopwatch
from cpsae.errors import SettingsError
from cpsae.events import OnEvent, ignore
from cpsae.sae.initialization import initialize
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.sae.normalization import Normalizer
from cpsae.training.recipes import preset, resolve_fit
from cpsae.training.step import Trainable

UPDATES = 4
PRESETS = ("baseline", "paper", "topk", "batchtopk", "jumprelu")
FLOOR = "five products"
_LEVEL = 2.154
"""What a standard normal is above once in 64 times."""


def bench_fit(
    d: int,
    n: int,
    batch: int,
    device: torch.device,
    presets: Sequence[str] = PRESETS,
    rounds: int = 5,
    on_event: OnEvent = ignore,
) -> Table:
    """Updates of each preset, all features enabled, float32, on rows of random numbers; and of
    other libraries' trainers, as far as they are installed. Raises SettingsError."""
    x_BD, w_MD = torch.randn(batch, d, device=device), torch.randn(n, d, device=device)
    updates: dict[str, Callable[[], object]] = {}
    for name in presets:
        update = trainable(name, d, n, device).update
        updates[f"cpsae {name}"] = partial(update, x_BD, 3e-4, measure=False)
    updates |= peers(d, n, x_BD)
    work = {FLOOR: Work(_several(partial(products, x_BD, w_MD)), UPDATES * batch)}
    work |= {name: Work(_several(update), UPDATES * batch) for name, update in updates.items()}
    title = f"fit, d = {d}, n = {n}"
    seconds = measure(work, rounds, stopwatch(device), title, on_event)
    setting = {"d": d, "n": n, "batch": batch, "rounds": rounds}
    return Table(title, FLOOR, setting, lines(work, seconds, FLOOR))


def products(x_BD: torch.Tensor, w_MD: torch.Tensor) -> None:
    """Encoder and decoder, and the three of their backward pass."""
    f_BM = x_BD @ w_MD.T
    x_hat_BD = f_BM @ w_MD
    _gradient_f_BM = x_hat_BD @ w_MD.T
    _gradient_w_dec_MD = f_BM.T @ x_hat_BD
    _gradient_w_enc_MD = f_BM.T @ x_BD


def trainable(name: str, d: int, n: int, device: torch.device) -> Trainable:
    """What a preset trains, all features enabled as in most of a run. Raises SettingsError."""
    layers = {"bench": {"growth": "none"}, f"preset {name}": preset(name)}
    settings = resolve_fit(layers).settings
    kind = load_kind(settings.kind)
    plan = RunPlan(d, n, steps=10**6, rows=10**9)
    weights = initialize(kind.weights, d, n)
    # rows of norm 1 in random directions: as in presets, each feature fires on about a 64th of them
    weights["b_enc"].fill_(-_LEVEL / d**0.5)
    weights = {key: w.to(device) for key, w in weights.items()}
    try:
        return Trainable(weights, kind(settings.method, plan), Normalizer("layer"), settings)
    except SettingsError as error:
        raise SettingsError(f"preset {name} at n = {n}: {error}") from None


def _several(update: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        for _ in range(UPDATES):
            update()

    return call
