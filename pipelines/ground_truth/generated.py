"""A fit whose rows are made as they are needed: 200M of them would be a store of 300 GB.

The world's own store gives what a run takes from its first rows (scale, mean, bound of norms) and
what is held out. The run folder is that of any fit, but `cpsae fit` cannot continue it.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from sae_lens.synthetic import SyntheticModel
from worlds import load_world, sample

from cpsae.device import choose_device
from cpsae.evaluation.held_out import measure
from cpsae.json_files import write_object
from cpsae.locks import writer_lock
from cpsae.sae.autoencoder import load
from cpsae.store import Store, open_store
from cpsae.store.provenance import provenance
from cpsae.training.facts import Facts, find_facts
from cpsae.training.feed import ActivationFeed, FeedPosition
from cpsae.training.loop import Loop
from cpsae.training.member import Member
from cpsae.training.run_folder import RunFolder
from cpsae.training.settings import FitSettings
from cpsae.training.start import find_start

SEEDS_A_RUN = 2**24
"""Each batch is drawn with a seed of its own, so that a resumed run sees the same rows; runs of
other seeds see others. Those of generate.py are above."""


class GeneratedFeed(ActivationFeed):
    """Endless batches from a world. The position's row counts the rows served."""

    def __init__(self, store: Store, world: SyntheticModel, settings: FitSettings) -> None:
        super().__init__(store.training, settings.batch_size, seed=settings.order_seed)
        self.world = world

    def stream(self, *, recycle: bool = False) -> Generator[torch.Tensor, None, None]:  # noqa: ARG002
        """Batches from `position` on."""
        while True:
            number = self.position.row // self.batch_size
            x_BD, _ = sample(self.world, self.batch_size, (self.seed + 1) * SEEDS_A_RUN + number)
            self.position = FeedPosition(row=self.position.row + self.batch_size)
            yield x_BD


def fit_generated(folder: Path, settings: FitSettings, out: Path, preset: str) -> dict[str, Any]:
    """Train, or continue, in `out`; the summary, which also goes to the run folder."""
    store, run = open_store(folder / "store.zarr"), RunFolder(out)
    run.refuse_foreign()
    device = choose_device(settings.device)
    with writer_lock(run.path, "run"):
        if run.started:
            run.refuse_other(settings, store)
        if run.complete:
            return run.read_summary()
        facts = _begun(run, settings, store, preset, device)
        world = load_world(folder, device.type)
        member = Member(run, settings, facts, store.d, device)
        Loop(GeneratedFeed(store, world, settings), [member]).run()
        member.trainable.autoencoder(provenance(store.manifest, store.identity)).save(run.path)
        [result] = measure([load(run.path, device)], store, facts.norm_bound) or []
        run.write_evaluation(result.as_json(), store)
        steps = member.schedule.steps
        flops = member.trainable.flops(settings.batch_size)
        summary = {**result.metrics, "steps": steps, "rows": steps * settings.batch_size}
        summary["flops"] = flops
        write_object(run.summary, summary)
    return summary


def _begun(
    run: RunFolder, settings: FitSettings, store: Store, preset: str, device: torch.device
) -> Facts:
    """What the run was begun with; recorded, where it begins now."""
    if run.started:
        return run.facts()
    facts = find_facts(store.training, settings, device)
    run.write_start(find_start(store.training, facts, settings))
    manifest = store.manifest.model_dump(mode="json")
    described = {"path": str(store.path.absolute()), "identity": store.identity}
    run.write_config(
        {
            "preset": preset,
            "settings": settings.model_dump(mode="json"),
            "facts": facts.as_json(),
            "store": {**described, "manifest": manifest, "chunks": None},
            "rows": "made while training by pipelines/ground_truth/generated.py",
        }
    )
    return facts
