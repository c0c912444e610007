"""Training beside an extraction: the same bytes as after it, however slowly rows come."""

import shutil
import threading
import time

import pytest
from tiny import LAYER, TOKENS

from cpsae.config import ExtractSettings
from cpsae.errors import SettingsError, StoreError
from cpsae.stages.extract import extract
from cpsae.stages.fit import FitResult, fit
from cpsae.stages.sweep import SweepResult, sweep
from cpsae.store import bound, growing, open_store
from cpsae.store.bucket import Folder
from cpsae.store.metadata import read_manifest, write_manifest
from cpsae.training import start
from cpsae.training.loop import Stopped
from cpsae.training.settings import FitSettings
from cpsae.training.sweep import SweepMember

SETTINGS = FitSettings(
    steps=60, batch_size=64, n_latents=48, lr=2e-3, device="cpu", window_chunks=2, max_norm=10
)
FILES = ("sae.safetensors", "sae.json", "summary.json", "evaluation.json")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(growing, "LOOK_SECONDS", 0.01)
    for module in (bound, start):  # or facts would be of all rows of so small a store
        monkeypatch.setattr(module, "FACT_ROWS", 500)


@pytest.fixture(scope="module")
def complete(gemma, corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("complete") / "acts.zarr"
    settings = ExtractSettings(
        model=str(gemma),
        layer=LAYER,
        tokens=TOKENS,
        dataset=str(corpus),
        vectors=6000,
        store=str(store),
        device="cpu",
    )
    return extract(settings).path


class Extraction:
    """A store that gets its chunks from a complete one, in order, from a thread."""

    def __init__(self, complete, path):
        self.path = path
        shutil.copytree(complete, path)
        self.complete = complete
        self.chunks = open_store(complete).chunks
        bucket = Folder(path)
        for chunk in self.chunks:
            for key in chunk.objects():
                bucket.remove(key)
        write_manifest(bucket, read_manifest(bucket).model_copy(update={"complete": False}))
        self.written = 0

    def write(self, count):
        """The next chunks, each object as a writer puts it: whole."""
        for chunk in self.chunks[self.written : self.written + count]:
            for key in chunk.objects():
                Folder(self.path).write(key, (self.complete / key).read_bytes())
        self.written += count

    def run(self):
        """Slowly, to the end."""

        def work():
            while self.written < len(self.chunks):
                time.sleep(0.05)
                self.write(1)
            bucket = Folder(self.path)
            write_manifest(bucket, read_manifest(bucket).model_copy(update={"complete": True}))

        thread = threading.Thread(target=work)
        thread.start()
        return thread


@pytest.fixture
def extraction(complete, tmp_path):
    return Extraction(complete, tmp_path / "growing" / "acts.zarr")


def same(run, other):
    for name in FILES:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


def test_a_run_beside_an_extraction_is_the_run_after_it(extraction, complete, tmp_path):
    assert len(extraction.chunks) > 4
    after = fit(complete, SETTINGS, out=tmp_path / "after")
    thread = extraction.run()
    beside = fit(extraction.path, SETTINGS, out=tmp_path / "beside", follow=True)
    thread.join()
    assert isinstance(beside, FitResult) and isinstance(after, FitResult)
    same(beside.path, after.path)
    assert fit(extraction.path, SETTINGS, out=tmp_path / "beside") == beside


def test_stopped_while_it_waits_it_goes_on_where_it_was(extraction, complete, tmp_path):
    after = fit(complete, SETTINGS, out=tmp_path / "after")
    extraction.write(4)  # less than all, enough to begin
    stop, run = threading.Event(), tmp_path / "run"
    threading.Timer(1.5, stop.set).start()
    stopped = fit(extraction.path, SETTINGS, out=run, follow=True, should_stop=stop.is_set)
    assert isinstance(stopped, Stopped) and stopped.step < 60
    thread = extraction.run()
    beside = fit(extraction.path, SETTINGS, out=run, follow=True)
    thread.join()
    assert isinstance(beside, FitResult)
    same(beside.path, after.path)


def test_a_sweep_follows_too(extraction, complete, tmp_path):
    members = [
        SweepMember(f"l1={l1}", {"l1": l1}, SETTINGS.model_copy(update={"seed": seed}))
        for seed, l1 in enumerate((0.01, 0.1))
    ]
    after = sweep(complete, members, out=tmp_path / "after")
    thread = extraction.run()
    beside = sweep(extraction.path, members, out=tmp_path / "beside", follow=True)
    thread.join()
    assert isinstance(beside, SweepResult) and isinstance(after, SweepResult)
    for member in members:
        same(beside.path / member.folder, after.path / member.folder)


def test_an_extraction_that_has_gone_is_an_error_and_nothing_is_lost(
    extraction, tmp_path, monkeypatch
):
    monkeypatch.setattr(growing, "GIVE_UP_SECONDS", 0.3)
    extraction.write(len(extraction.chunks) - 1)
    with pytest.raises(StoreError, match=r"has not come .* run `cpsae extract` again"):
        fit(extraction.path, SETTINGS, out=tmp_path / "run", follow=True)
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_following_a_finished_store_is_reading_it(complete, tmp_path):
    after = fit(complete, SETTINGS, out=tmp_path / "after")
    beside = fit(complete, SETTINGS, out=tmp_path / "beside", follow=True)
    assert isinstance(beside, FitResult) and isinstance(after, FitResult)
    same(beside.path, after.path)


def test_both_ways_to_take_an_unfinished_store_are_refused(extraction):
    with pytest.raises(SettingsError, match="--follow and --allow-partial"):
        fit(extraction.path, SETTINGS, follow=True, allow_partial=True)
