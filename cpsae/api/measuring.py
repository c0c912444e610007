"""evaluate, report, compare and verify_store as they are called from Python. Each does what the
function below cpsae.stages, or in cpsae.store, of its name does."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cpsae.api.keywords import Text, path_or_none
from cpsae.api.progress import listening
from cpsae.events import OnEvent
from cpsae.stages import compare as comparing
from cpsae.stages import evaluate as evaluating
from cpsae.stages import report as reporting
from cpsae.stages.compare import Comparison
from cpsae.stages.evaluate import Evaluation
from cpsae.stages.report import ROWS, Report
from cpsae.store import verify
from cpsae.store.verify import Verification


def evaluate(
    run: Text,
    store: Text | None = None,
    *,
    model: str | None = None,
    contexts: int | None = None,
    step: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str | None = None,
    device: str = "auto",
    progress: bool = True,
    on_event: OnEvent | None = None,
) -> Evaluation:
    """Measure a run on the held-out rows of its store, or of another one.

    Args:
        run: its folder, or what `fit` gave.
        store: another store than the run's own.
        model: also measure what reconstructions do to this language model: a hub name, a folder, a
            .gguf file, or "store" for the one that the store names.
        contexts: take the first so many held-out contexts alone.
        step: the autoencoder after this update, whose checkpoint is there.
        revision: of a model on the hub: branch, tag or commit.
        trust_remote_code: run code that the model's repository brings along.
        dtype: what the model computes in; by default what it did for the store.
        device: auto, cpu, cuda or cuda:I.
        progress: show bars and notes; False leaves warnings.
        on_event: called with each event of cpsae.events, instead of progress being shown.

    Raises a CpsaeError where there is no such run, store or model, or they do not belong together.
    """
    with listening(progress, on_event) as heard:
        return evaluating.evaluate(
            os.fspath(run),
            path_or_none(store),
            model=model,
            contexts=contexts,
            step=step,
            revision=revision,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            device=device,
            on_event=heard,
        )


def evaluate_each(
    paths: Sequence[Text],
    store: Text | None = None,
    *,
    model: str | None = None,
    contexts: int | None = None,
    step: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: str | None = None,
    device: str = "auto",
    progress: bool = True,
    on_event: OnEvent | None = None,
) -> dict[Path, Evaluation]:
    """`evaluate` of each run at or below the paths; of runs of one store the language model runs
    once for all. Arguments and errors are those of `evaluate`."""
    with listening(progress, on_event) as heard:
        return evaluating.evaluate_each(
            [os.fspath(path) for path in paths],
            path_or_none(store),
            model=model,
            contexts=contexts,
            step=step,
            revision=revision,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            device=device,
            on_event=heard,
        )


def report(
    runs: Text | Iterable[Text],
    out: Text | None = None,
    *,
    rows: int = ROWS,
    store: Text | None = None,
    model: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    logits: bool = True,
    neuronpedia: Text | None = None,
    device: str = "auto",
    progress: bool = True,
    on_event: OnEvent | None = None,
) -> Report:
    """Runs and their features on one self-contained HTML page, under 10 MB.

    runs: finished runs, sweeps, and folders that hold either.
    out: the page; by default RUN/report.html, of several runs ./report.html.
    rows: to look for examples in: the held-out ones, then the first of training.
    store: another store than the runs' own.
    model: the language model, for its words: a hub name, a folder, a .gguf file, or "store" for
        the one that the store names; by default that one, where it is on this machine.
    revision, trust_remote_code: of the model.
    logits: show which output tokens a feature promotes, for which the whole model is loaded.
    neuronpedia: a folder to write a run's features into as Neuronpedia takes them.
    device: auto, cpu, cuda or cuda:I.

    Raises a CpsaeError where there is no such run, store or model, or a run is not finished.
    """
    given = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    with listening(progress, on_event) as heard:
        return reporting.report(
            [os.fspath(run) for run in given],
            path_or_none(out),
            rows=rows,
            store=path_or_none(store),
            model=model,
            revision=revision,
            trust_remote_code=trust_remote_code,
            logits=logits,
            neuronpedia=path_or_none(neuronpedia),
            device=device,
            on_event=heard,
        )


def compare(
    paths: Text | Iterable[Text],
    out: Text | None = None,
    *,
    each: bool = False,
    columns: Sequence[str] = (),
    progress: bool = True,
    on_event: OnEvent | None = None,
) -> Comparison:
    """Runs beside each other: a table, and a picture of explained variance and CE-loss score
    against L0.

    Args:
        paths: runs, sweeps, and folders that hold either.
        out: a .svg or .png to draw into.
        each: show every run, not the mean of those that differ in their seeds alone.
        columns: figures to show beside those that are always shown.

    Raises SettingsError where `out` is neither .svg nor .png; RunError where a path holds no run;
    DiskError where `out` cannot be written.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with listening(progress, on_event) as heard:
        places = [os.fspath(path) for path in given]
        return comparing.compare(
            places, path_or_none(out), each=each, columns=columns, on_event=heard
        )


def verify_store(
    path: Text, on_event: OnEvent | None = None, *, progress: bool = True
) -> Verification:
    """Read every object of a store and check it.

    Raises StoreError where the folder is no store or its metadata cannot be read.
    """
    with listening(progress, on_event) as heard:
        return verify.verify_store(os.fspath(path), heard)
