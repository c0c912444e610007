"""extract, fit and sweep as they are called from Python. Each does what the function of its name
below cpsae.stages does."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, overload

from cpsae.api.keywords import ExtractKeywords, FitKeywords, RunKeywords, Text, path_or_none
from cpsae.api.progress import listening
from cpsae.api.settings import (
    begun_from,
    extract_settings,
    fit_settings_of,
    sweep_settings,
    with_keywords,
)
from cpsae.config import ExtractSettings
from cpsae.errors import SettingsError
from cpsae.events import OnEvent
from cpsae.stages import extract as extracting
from cpsae.stages import fit as fitting
from cpsae.stages import sweep as sweeping
from cpsae.stages.extract import Extraction
from cpsae.stages.fit import FitResult
from cpsae.stages.sweep import SweepResult
from cpsae.training.loop import Stopped
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import SweepMember, parse_axes
from cpsae.training.sweep import members as combined
from cpsae.workers import Worker


@with_keywords(ExtractKeywords)
def extract(
    settings: ExtractSettings | None = None,
    on_event: OnEvent | None = None,
    worker: Worker | None = None,
    *,
    fresh: bool = False,
    progress: bool = True,
    **keywords: Unpack[ExtractKeywords],
) -> Extraction:
    """Write a language model's activations to a store; of several layers or hooks, to a folder of
    stores. Where an earlier call got to, this one goes on.

    `cpsae.extract(model="gpt2", layer=6, dataset="texts.jsonl", vectors="1M", store="acts.zarr")`:
    each keyword is a setting of ExtractSettings, which may be given whole as `settings`; keywords
    are put over it.

    Args:
        settings: all settings in one object.
        on_event: called with each event of cpsae.events, instead of progress being shown.
        worker: this process among several; by default as torchrun or Slurm says.
        fresh: rename what is there aside, and begin.
        progress: show bars and notes; False leaves warnings.

    Raises SettingsError for a wrong setting or keyword, and the other errors of cpsae.errors for
    what else the user can mend; what is committed stays.
    """
    chosen = extract_settings(settings, keywords)
    with listening(progress, on_event) as heard:
        return extracting.extract(chosen, heard, worker, fresh=fresh)


@overload
def fit(
    store: Text,
    settings: FitSettings | None = None,
    **keywords: Unpack[RunKeywords],
) -> FitResult: ...


@overload
def fit(
    store: Text,
    settings: FitSettings | None = None,
    *,
    should_stop: Callable[[], bool],
    **keywords: Unpack[RunKeywords],
) -> FitResult | Stopped: ...


@with_keywords(FitKeywords)
def fit(
    store: Text,
    settings: FitSettings | None = None,
    *,
    out: Text | None = None,
    init_run: Text | None = None,
    preset: str = "paper",
    fresh: bool = False,
    allow_partial: bool = False,
    follow: bool = False,
    stretch: bool = False,
    track: str | Sequence[str] = (),
    track_project: str | None = None,
    store_identity: str | None = None,
    progress: bool = True,
    on_event: OnEvent | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **keywords: Unpack[FitKeywords],
) -> FitResult | Stopped:
    """Train a sparse autoencoder on a store, and measure it on rows held out, or go on with that:
    `cpsae.fit("acts.zarr", preset="batchtopk", k=32)`: keywords are settings, over the preset's.

    Args:
        store: its path, or what `open_store` or `extract` gave.
        settings: all settings in one object; the preset is then a name alone.
        out: the run folder; by default ./runs/<preset>-<8 hex of settings and store>.
        init_run: begin with the weights of this run, and its settings unless a preset is named.
        preset: paper, baseline, frontier, or a kind of autoencoder.
        fresh: rename the run that is there aside, and begin.
        allow_partial: take a store that is not finished, as far as it is there.
        follow: take a store that is still being extracted, and wait for its rows.
        stretch: give a finished run more steps though it will not be as one of that length.
        track: show it in trackio, wandb, tensorboard.
        track_project: under which name there.
        store_identity: refuse a store of another identity.
        progress: show bars and notes; False leaves warnings.
        on_event: called with each event of cpsae.events, instead of progress being shown.
        should_stop: asked after each step; True ends in a checkpoint, and `Stopped`.

    Raises SettingsError for a wrong setting or keyword, and the other errors of cpsae.errors for
    what else the user can mend; checkpoints stay.
    """
    preset, chosen = fit_settings_of(settings, preset, init_run, keywords)
    with listening(progress, on_event) as heard:
        return fitting.fit(
            os.fspath(store),
            chosen,
            out=path_or_none(out),
            init_run=path_or_none(init_run),
            preset=preset,
            fresh=fresh,
            allow_partial=allow_partial,
            follow=follow,
            stretch=stretch,
            track=track,
            track_project=track_project,
            store_identity=store_identity,
            on_event=heard,
            should_stop=should_stop,
        )


@overload
def sweep(
    store: Text,
    members: Mapping[str, Sequence[Any]] | Sequence[SweepMember],
    settings: FitSettings | None = None,
    **keywords: Unpack[RunKeywords],
) -> SweepResult: ...


@overload
def sweep(
    store: Text,
    members: Mapping[str, Sequence[Any]] | Sequence[SweepMember],
    settings: FitSettings | None = None,
    *,
    should_stop: Callable[[], bool],
    **keywords: Unpack[RunKeywords],
) -> SweepResult | Stopped: ...


@with_keywords(FitKeywords)
def sweep(
    store: Text,
    members: Mapping[str, Sequence[Any]] | Sequence[SweepMember],
    settings: FitSettings | None = None,
    *,
    out: Text | None = None,
    init_run: Text | None = None,
    preset: str = "paper",
    fresh: bool = False,
    allow_partial: bool = False,
    follow: bool = False,
    stretch: bool = False,
    track: str | Sequence[str] = (),
    track_project: str | None = None,
    store_identity: str | None = None,
    progress: bool = True,
    on_event: OnEvent | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **keywords: Unpack[FitKeywords],
) -> SweepResult | Stopped:
    """Train an autoencoder for each value, or each combination of values, reading the store once
    for all: `cpsae.sweep("acts.zarr", {"k": [16, 32, 64]}, preset="batchtopk")`. Each run is the
    very one that `fit` gives.

    members: values by setting, or members that are put together already.
    The other arguments, and what is raised, are those of `fit`; `out` holds a folder for each run,
    named like k=16.
    """
    preset, from_run = begun_from(settings, preset, init_run)
    if isinstance(members, Mapping):
        members = _members(members, sweep_settings(settings, preset, keywords, from_run))
    elif keywords or settings is not None:
        raise SettingsError("sweep(): members have their settings; leave other settings out")
    with listening(progress, on_event) as heard:
        return sweeping.sweep(
            os.fspath(store),
            members,
            out=path_or_none(out),
            init_run=path_or_none(init_run),
            preset=preset,
            fresh=fresh,
            allow_partial=allow_partial,
            follow=follow,
            stretch=stretch,
            track=track,
            track_project=track_project,
            store_identity=store_identity,
            on_event=heard,
            should_stop=should_stop,
        )


def _members(
    over: Mapping[str, Sequence[Any]], varied: Callable[[Mapping[str, Any]], FitSettings]
) -> list[SweepMember]:
    if not over:
        raise SettingsError('sweep(): members names no setting; give one like {"k": [16, 32]}')
    axes = parse_axes([f"{key}={','.join(map(_typed, values))}" for key, values in over.items()])
    return combined(axes, varied)


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
