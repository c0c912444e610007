"""Extraction against the bare truncated forward pass on as many contexts."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from cpsae.bench.side_by_side import Table, Work, lines, stopwatch
from cpsae.config import ExtractSettings
from cpsae.device import choose_device, choose_dtype
from cpsae.events import Advanced, Finished, OnEvent, Started, ignore
from cpsae.models import TruncatedModel, find_source
from cpsae.stages.extract import extract
from cpsae.store import open_store

FLOOR = "bare forward pass"


def bench_extract(
    settings: ExtractSettings,
    rounds: int = 3,
    folder: Path | None = None,
    on_event: OnEvent = ignore,
) -> Table:
    """`settings.vectors` and a quarter of them are extracted into stores that are removed
    afterwards: by difference, what comes once (weights, self-test) falls out. Raises a CpsaeError
    where a store cannot be made."""
    device = choose_device(settings.device)
    clock = stopwatch(device)
    few = settings.model_copy(update={"vectors": settings.vectors // 4})
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place:
        made = Path(place)

        def extraction(of: ExtractSettings, name: str) -> Callable[[], object]:
            return lambda: extract(of.model_copy(update={"store": str(made / name)}))

        on_event(Started("bench extract", 3 * rounds + 1, "measurement", kept=False))
        extraction(few, "first")()
        forward, ran = _forward(settings, made / "first", device)
        times: dict[str, list[float]] = {FLOOR: [], "cpsae extract": []}
        for number in range(rounds):
            short = clock(extraction(few, f"few-{number}"))
            on_event(Advanced(3 * number + 2))
            long = clock(extraction(settings, f"all-{number}"))
            on_event(Advanced(3 * number + 3))
            times["cpsae extract"].append(long - short)
            times[FLOOR].append(clock(forward))
            on_event(Advanced(3 * number + 4))
        on_event(Finished())
        vectors = _held(made / "all-0") - _held(made / "few-0")
    work = {
        FLOOR: Work(forward, ran),
        "cpsae extract": Work(lambda: None, vectors),
    }
    setting = {
        "model": settings.model,
        "layer": settings.layer,
        "tokens": settings.tokens,
        "rounds": rounds,
    }
    return Table(f"extract, {Path(settings.model).name}", FLOOR, setting, lines(work, times, FLOOR))


def _held(store: Path) -> int:
    """Vectors that were computed for a store."""
    manifest = open_store(store).manifest
    return manifest.vectors + manifest.evaluation_vectors


def _forward(
    settings: ExtractSettings, store: Path, device: torch.device
) -> tuple[Callable[[], None], int]:
    """The model on the store's own tokens in batches as they were extracted; how many vectors that
    gives."""
    opened = open_store(store)
    part, manifest = opened.training, opened.manifest
    model = TruncatedModel.load(
        find_source(settings.model, settings.revision, settings.trust_remote_code),
        settings.sites,
        choose_dtype(settings.dtype, device),
        device,
        settings.attention,
    )
    record = manifest.contexts
    assert record is not None, "an extraction has contexts"
    contexts = part.vectors // record.rows
    tokens = torch.from_numpy(part.tokens(range(contexts))).to(device)

    def call() -> None:
        for first in range(0, contexts, record.batch_contexts):
            model.rows(tokens[first : first + record.batch_contexts])

    return call, contexts * record.rows
