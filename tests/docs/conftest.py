"""A folder as the pages take it for granted: a store, runs, a corpus, all of them small; and the
stages with sizes of their own put down to it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TOKENS

from cpsae.config import ExtractSettings
from cpsae.stages import extract as extracting
from cpsae.stages import fit as fitting
from cpsae.stages import sweep as sweeping
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import SweepMember

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from row_files import write_cached  # noqa: E402

RUNS = {
    "paper-1a2b3c4d": {"preset": "paper", "steps": 2000, "checkpoint_every": 1000},
    "batchtopk-1a2b3c4d": {"preset": "batchtopk", "k": 8, "steps": 40},
    "frontier-1a2b3c4d": {"preset": "frontier", "k": 8, "steps": 40},
}
"""By the names that the pages have for them; of the first they want step 2000."""
_STEPS = 12


@contextmanager
def small(gemma: Path, corpus: Path) -> Iterator[pytest.MonkeyPatch]:
    """Every extraction is of the tiny model over the tiny corpus, every fit is of a few steps."""
    extract, fit, sweep = extracting.extract, fitting.fit, sweeping.sweep

    def small_extract(settings: ExtractSettings, *rest: Any, **more: Any) -> Any:
        local = Path(settings.dataset).exists()
        changes = {"model": str(gemma), "vectors": 900, "tokens": TOKENS, "device": "cpu"}
        changes |= {} if local else {"dataset": str(corpus)}
        return extract(settings.model_copy(update=changes), *rest, **more)

    def small_fit(store: Any, settings: FitSettings, **more: Any) -> Any:
        return fit(store, _small(settings), **more)

    def small_sweep(store: Any, members: list[SweepMember], **more: Any) -> Any:
        put_down = [SweepMember(m.folder, m.values, _small(m.settings)) for m in members]
        return sweep(store, put_down, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extracting, "extract", small_extract)
        patch.setattr(fitting, "fit", small_fit)
        patch.setattr(sweeping, "sweep", small_sweep)
        yield patch


def _small(settings: FitSettings) -> FitSettings:
    if settings.steps is not None and settings.batch_size == 16:
        return settings  # the world's own
    most = min(_STEPS, settings.steps or _STEPS)
    n = min(settings.n_latents or 128, 128)  # of a run that is gone on from, its own
    changes = {"steps": most, "batch_size": 32, "device": "cpu", "n_latents": n}
    return settings.model_copy(update=changes)


@pytest.fixture(scope="session")
def template(gemma: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; do not change it."""
    import cpsae

    folder = tmp_path_factory.mktemp("world")
    with small(gemma, corpus) as patch:
        patch.chdir(folder)
        cpsae.extract(layer=19, store="acts.zarr", progress=False)
        for name, keywords in RUNS.items():
            chosen: Any = {"batch_size": 16, "device": "cpu", **keywords}
            cpsae.fit("acts.zarr", out=f"runs/{name}", progress=False, **chosen)
        swept: Any = {"preset": "topk", "progress": False}
        cpsae.sweep("acts.zarr", {"k": [4, 8]}, out="runs/sweep-5e6f7a8b", **swept)
    mixed = folder / "mixed"
    mixed.mkdir()
    shutil.copy(corpus, mixed / "train.jsonl")
    shutil.copy(corpus, folder / "texts.jsonl")
    (mixed / "LICENSE").write_text("Apache-2.0\n")
    _from_elsewhere(folder)
    return folder


def _from_elsewhere(folder: Path) -> None:
    """What other programs left: an autoencoder, also as a run, and activations."""
    import cpsae

    random, d = np.random.default_rng(0), cpsae.open_store(folder / "acts.zarr").d
    scope = folder / "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    scope.mkdir(parents=True)
    w_dec = random.standard_normal((48, d)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(48, np.float32)
    biases: dict[str, Any] = {"b_enc": zeros, "threshold": zeros, "b_dec": zeros[:1].repeat(d)}
    np.savez(scope / "params.npz", W_enc=w_dec.T, W_dec=w_dec, **biases)
    cpsae.convert(scope, folder / "converted")
    made = random.standard_normal((80, 5, d)).astype(np.float32)
    np.save(folder / "rows.npy", made.reshape(-1, d))
    write_cached(folder / "cached_activations", made)


@pytest.fixture
def world(template: Path, tmp_path: Path, gemma: Path, corpus: Path) -> Iterator[Path]:
    """A copy of it, as the working folder."""
    folder = tmp_path / "world"
    shutil.copytree(template, folder)
    with small(gemma, corpus) as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture
def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """run_command(arguments) runs `cpsae` with them in this process, and gives what it printed."""
    from cpsae.cli.main import _run

    def run(arguments: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["cpsae", *arguments])
        capsys.readouterr()
        code = _run()
        captured = capsys.readouterr()
        assert code == 0, f"cpsae {' '.join(arguments)}: {captured.err}"
        return captured.out

    return run
