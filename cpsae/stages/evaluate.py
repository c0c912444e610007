"""Runs measured on held-out rows, and through the language model, as one calls it."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cpsae.device import choose_device
from cpsae.errors import RunError, SettingsError
from cpsae.evaluation.held_out import HeldOutResult, measure
from cpsae.events import Note, OnEvent, ignore
from cpsae.sae.autoencoder import SparseAutoencoder
from cpsae.stages.figures import in_words
from cpsae.stages.found_runs import find_runs
from cpsae.stages.load import load
from cpsae.stages.run_store import RunOnStore, run_on_store
from cpsae.store import Store
from cpsae.tensors import TORCH_DTYPES
from cpsae.training.run_folder import RunFolder
from cpsae.urls import Place

if TYPE_CHECKING:
    from cpsae.evaluation.through_model import ThroughModelResult


_WEIGHTS_AT_ONCE = 1 << 32
"""Bytes of autoencoders that are measured in one pass."""


@dataclass(frozen=True)
class Evaluation:
    """What a run was found to be worth."""

    path: Path
    """The file that says so."""
    content: dict[str, Any]
    """What that file holds."""
    metrics: dict[str, float | int | None]
    """The flat figures under our own names, without their intervals."""

    def __repr__(self) -> str:
        return f"Evaluation({self.path}: {in_words(self.metrics)})"


@dataclass(frozen=True)
class ModelChoice:
    """Which language model, and how it runs."""

    name: str
    """A hub name, a local folder, a .gguf file, or `store` for the one that the store names."""
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str | None = None
    """What it computes in; None for what the store's rows were computed in."""


def evaluate(
    run: str | Path,
    store: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    contexts: int | None = None,
    step: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Evaluation:
    """Metrics of a finished run on the held-out rows of `store` (default: the run's own), or of its
    first `contexts`, which become the run's evaluation.json; of any run after update `step`, whose
    checkpoint is there: evaluation-step-NNNNNN.json.

    With `model` (a hub name at `revision`, a folder, a .gguf file, or `store` for the one that the
    store names) also what reconstructions do to that model, which computes in `dtype` (default: as
    it did for the store).

    The run's recorded bound of norms holds for its own store; for another one, the same rule
    (`max_norm` times a median) on that store's rows. Raises a CpsaeError where there is no such run
    or store or model, nothing is held out, the model is not the store's, or another store lies
    where the run's own one did.
    """
    how = _How(_choice(model, revision, trust_remote_code, dtype), contexts, step, on_event)
    [(_, found)] = _evaluated([RunFolder(run)], store, choose_device(device), how)
    return found


def evaluate_each(
    paths: Sequence[str | Path],
    store: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    contexts: int | None = None,
    step: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> dict[Path, Evaluation]:
    """What `evaluate` gives of each run at or below `paths`, in less time: of runs of one store the
    language model runs as it is, and up to the store's site, once for all.

    Below a path that is no run itself, unfinished ones are left out, unless `step` is given.
    A run's file is written when all that are measured along with it are. Raises a CpsaeError as
    `evaluate` does.
    """
    how = _How(_choice(model, revision, trust_remote_code, dtype), contexts, step, on_event)
    folders = [RunFolder(path) for path in _runs(paths, step, on_event)]
    found = dict(_evaluated(folders, store, choose_device(device), how))
    return {folder.path: found[folder.path] for folder in folders}


def is_run(path: str | Path) -> bool:
    """Whether this is a run's own folder."""
    return RunFolder(path).started


@dataclass(frozen=True)
class _How:
    """What is the same for all runs."""

    choice: ModelChoice | None
    contexts: int | None
    step: int | None
    on_event: OnEvent


@dataclass(frozen=True)
class _Loaded:
    asked: RunOnStore
    sae: SparseAutoencoder


def _runs(paths: Sequence[str | Path], step: int | None, on_event: OnEvent) -> list[Path]:
    runs: list[Path] = []
    for path in paths:
        if is_run(path) or not RunFolder(path).path.is_dir():
            runs.append(RunFolder(path).path)
            continue
        for run in find_runs([path]):
            if step is not None or RunFolder(run).complete:
                runs.append(run)
            else:
                on_event(Note(f"{run}: is not finished; left out", "warning"))
    if not runs:
        raise RunError(f"{', '.join(map(str, paths))}: no run is finished; run `cpsae fit` again")
    return list(dict.fromkeys(runs))


def _evaluated(
    folders: Sequence[RunFolder],
    store: str | os.PathLike[str] | None,
    device: torch.device,
    how: _How,
) -> Iterator[tuple[Path, Evaluation]]:
    """Each run's evaluation, once it is written."""
    opened: dict[Place, Store] = {}
    by_store: dict[str, list[RunOnStore]] = {}
    for folder in folders:
        asked = run_on_store(folder, store, opened, how.on_event)
        by_store.setdefault(str(asked.store.path), []).append(asked)
    for runs in by_store.values():
        through = None
        if how.choice is not None:
            through = _Through(how.choice, runs[0].store, device, how)
        for some in _at_once(runs, device, how.step):
            for asked, result in _measured(some, through, how):
                written = asked.folder.write_evaluation(result.as_json(), asked.store, how.step)
                yield asked.folder.path, Evaluation(*written, result.metrics)


def _choice(
    model: str | None, revision: str | None, trust_remote_code: bool, dtype: str | None
) -> ModelChoice | None:
    """Raises SettingsError for what cannot apply."""
    if model is not None:
        if dtype is not None and dtype not in TORCH_DTYPES:
            raise SettingsError(f"--dtype: '{dtype}' is not one of {', '.join(TORCH_DTYPES)}")
        return ModelChoice(model, revision, trust_remote_code, dtype)
    given = {"--revision": revision, "--trust-remote-code": trust_remote_code, "--dtype": dtype}
    for flag, value in given.items():
        if value:
            raise SettingsError(f"{flag}: is of the language model; give --model too")
    return None


def _at_once(
    runs: Sequence[RunOnStore], device: torch.device, step: int | None
) -> Iterator[list[_Loaded]]:
    """Their autoencoders, as many as may be held at once."""
    some: list[_Loaded] = []
    size = 0
    for asked in runs:
        sae = load(asked.folder.path, device, step=step)
        own = sum(parameter.nbytes for parameter in sae.parameters())
        if some and size + own > _WEIGHTS_AT_ONCE:
            yield some
            some, size = [], 0
        some.append(_Loaded(asked, sae))
        size += own
    yield some


def _measured(
    loaded: Sequence[_Loaded], through: "_Through | None", how: _How
) -> Iterator[tuple[RunOnStore, HeldOutResult]]:
    """Of one store."""
    store = loaded[0].asked.store
    of_model = through.measure([each.sae for each in loaded]) if through else [None] * len(loaded)
    special = through.special if through else None
    results: list[HeldOutResult] = []
    for bound, some in itertools.groupby(loaded, lambda each: each.asked.bound):
        saes = [each.sae for each in some]
        found = measure(saes, store, bound, how.on_event, contexts=how.contexts, special=special)
        assert found is not None, "nobody asked to stop"
        results += found
    there = results[0].basis["evaluation_contexts"]
    if how.contexts is not None and there < how.contexts:
        how.on_event(
            Note(f"{store.path}: has {there} held-out contexts; all were taken", "warning")
        )
    for each, result, by_model in zip(loaded, results, of_model, strict=True):
        yield each.asked, result if by_model is None else _joined(result, by_model)


class _Through:
    """The language model that a store was made with."""

    def __init__(self, choice: ModelChoice, store: Store, device: torch.device, how: _How) -> None:
        # where no model is asked for, nothing of transformers is imported
        from cpsae.evaluation.store_model import find_model, load_model, special_tokens

        source = find_model(store, choice.name, choice.revision, choice.trust_remote_code)
        dtype = TORCH_DTYPES[choice.dtype] if choice.dtype else None
        self._store, self._how = store, how
        self._model = load_model(store, source, device, dtype)
        self.special = special_tokens(source, self._model, how.on_event)

    def measure(self, saes: Sequence[SparseAutoencoder]) -> "list[ThroughModelResult]":
        """What each one does to it."""
        from cpsae.evaluation.through_model import measure_through

        how = self._how
        return measure_through(
            saes, self._store, self._model, self.special, how.contexts, how.on_event
        )


def _joined(result: HeldOutResult, through: "ThroughModelResult") -> HeldOutResult:
    return replace(
        result,
        metrics={**result.metrics, **through.metrics},
        intervals={**result.intervals, **through.intervals},
        saebench={**result.saebench, **through.saebench},
        basis={**result.basis, **through.basis},
    )
