"""Lengths and learning rates, counted by hand from METHOD section 4 and DESIGN "Training"."""

import pytest

from cpsae.training.schedule import Schedule as _Schedule
from cpsae.training.settings import FitSettings


class Schedule:
    @staticmethod
    def of(settings, vectors):
        return _Schedule.of(settings, vectors, settings.batch_size)


def test_the_papers_epoch():
    schedule = Schedule.of(FitSettings(), 10_000_000)
    assert (schedule.steps, schedule.warmup_steps, schedule.scale) == (4882, 1000, 1.0)
    assert schedule.lr_at(1) == pytest.approx(3e-7)
    assert schedule.lr_at(500) == pytest.approx(1.5e-4)
    assert schedule.lr_at(1000) == schedule.lr_at(4882) == 3e-4


def test_shorter_runs_are_scaled():
    schedule = Schedule.of(FitSettings(steps=1500, batch_size=1024), 300_000)
    assert schedule.warmup_steps == 307  # 1000 x 1500 / 4882
    assert schedule.scale == pytest.approx(1500 / 4882)


def test_scaling_off_and_longer_runs():
    off = Schedule.of(FitSettings(steps=1500, scale_schedule=False), 10)
    assert (off.warmup_steps, off.scale) == (1000, 1.0)
    long = Schedule.of(FitSettings(steps=9764), 10)
    assert (long.steps, long.warmup_steps, long.scale) == (9764, 1000, 1.0)


@pytest.mark.parametrize(("vectors", "steps"), [(2048, 1), (4095, 1), (4096, 2), (5, 1)])
def test_an_epoch_is_floor_of_vectors_by_batch(vectors, steps):
    assert Schedule.of(FitSettings(), vectors).steps == steps


def test_decay_falls_linearly_over_the_last_fraction():
    settings = FitSettings(steps=100, warmup_steps=0, lr=1.0, lr_decay=0.2)
    rates = [Schedule.of(settings, 10).lr_at(step) for step in range(1, 101)]
    assert rates[:80] == [1.0] * 80
    assert rates[80:] == pytest.approx([left / 21 for left in range(20, 0, -1)])


def test_no_warm_up():
    assert Schedule.of(FitSettings(warmup_steps=0, steps=10), 10).lr_at(1) == 3e-4
