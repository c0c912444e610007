"""What a training takes, and what is advised where it does not fit."""

import re

import pytest
import torch

from cpsae.errors import SettingsError
from cpsae.memory import Room
from cpsae.sae.kinds import load_kind
from cpsae.training.memory_plan import plan_memory, refuse_large
from cpsae.training.settings import FitSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
D, N, B = 100, 5000, 1000


def settings(kind="relu", **more):
    return FitSettings(kind=kind, **{"n_latents": N, "batch_size": B, **more})


@pytest.fixture
def free(monkeypatch):
    """free(bytes, limit) is what the machine has."""

    def set_to(count, limit=""):
        monkeypatch.setattr("cpsae.device.main_memory", lambda: Room(count, limit))

    return set_to


def test_weights_are_counted_with_moments_and_gradients():
    plan = plan_memory([settings()], D, CPU)
    own = N * (2 * D + 1) + D
    assert plan.weights == 4 * 4 * own
    assert plan_memory([settings("jumprelu")], D, CPU).weights == plan.weights + 4 * 4 * N
    assert plan_memory([settings(n_latents=None)], D, CPU).weights == 4 * 4 * (D * (2 * D + 1) + D)


def test_latents_grow_with_the_batch_and_by_the_rule():
    one = plan_memory([settings()], D, CPU).latents
    assert one >= 2 * 4 * B * N  # f and a gradient at the least
    assert plan_memory([settings(batch_size=2 * B)], D, CPU).latents == 2 * one
    assert plan_memory([settings()], D, CUDA).latents > one
    assert plan_memory([settings("p-anneal")], D, CPU).latents > one


def test_processes_share_the_batch_but_not_the_weights():
    one, each = (plan_memory([settings()], D, CPU, processes=count) for count in (1, 4))
    assert each.latents == one.latents // 4 and each.rows == one.rows // 4
    assert each.weights == one.weights * 5 // 4  # gradients once more, as they are sent


def test_processes_share_features_and_all_that_belongs_to_them():
    one, each = (plan_memory([settings(split="features")], D, CPU, processes=c) for c in (1, 4))
    assert each.latents == one.latents // 4 and each.rows == one.rows
    assert each.weights - 16 * D == (one.weights - 16 * D) // 4


def test_runs_together():
    one = plan_memory([settings()], D, CPU)
    two = plan_memory([settings(), settings(seed=1)], D, CPU)
    assert (two.weights, two.latents, two.rows) == (2 * one.weights, 2 * one.latents, one.rows)
    sparse = plan_memory([settings("topk", k=8)], D, CPU)
    assert plan_memory([settings("topk", k=8)] * 2, D, CPU).latents == sparse.latents


def test_no_memory_is_taken_for_a_plan():
    assert plan_memory([settings("topk", n_latents=10**12, k=2)], D, CPU).total > 10**15


def test_what_fits_is_let_pass(free):
    plan = plan_memory([settings()], D, CPU)
    free(plan.total)
    assert refuse_large([settings()], D, CPU) == plan


def test_a_smaller_batch_is_advised_and_fits(free):
    room = int(plan_memory([settings()], D, CPU).total * 0.6)
    free(room, "RLIMIT_AS")
    with pytest.raises(SettingsError, match=r"n_latents 5000 and batch_size 1000: .* free under "
                       r"RLIMIT_AS; --batch-size \d+ fits") as refused:  # fmt: skip
        refuse_large([settings()], D, CPU)
    batch = int(re.search(r"--batch-size (\d+)", str(refused.value))[1])
    assert plan_memory([settings(batch_size=batch)], D, CPU).total <= room
    assert plan_memory([settings(batch_size=batch + 1)], D, CPU).total > room


def test_a_smaller_dictionary_is_advised_where_weights_take_it_all(free):
    room = int(plan_memory([settings()], D, CPU).weights * 0.7)
    free(room)
    with pytest.raises(SettingsError, match=r"2 runs with .*--n-latents \d+ fits") as refused:
        refuse_large([settings(), settings(seed=1)], D, CPU)
    n = int(re.search(r"--n-latents (\d+)", str(refused.value))[1])
    assert plan_memory([settings(n_latents=n)] * 2, D, CPU).total <= room


@pytest.mark.parametrize(("processes", "said"), [(1, "3"), (2, "3"), (4, "these 4")])
def test_that_a_split_dictionary_fits_is_said(free, processes, said):
    shared, split = settings(batch_size=300), settings(batch_size=300, split="features")
    free(plan_memory([split], D, CPU, processes=3).total)
    text = rf"--n-latents \d+ fits, or --split features fits over {said} processes"
    with pytest.raises(SettingsError, match=text):
        refuse_large([shared], D, CPU, processes)
    refuse_large([split], D, CPU, 3)
    with pytest.raises(SettingsError, match=r"over 3 processes"):
        refuse_large([split], D, CPU, 2)


def test_of_a_kind_that_is_not_split_nothing_is_said(free, monkeypatch):
    monkeypatch.setattr(load_kind("relu"), "works_split", False)
    free(int(plan_memory([settings()], D, CPU).weights * 0.7))
    with pytest.raises(SettingsError, match=r"--n-latents \d+ fits$"):
        refuse_large([settings()], D, CPU)


def test_nothing_fits(free):
    free(10)
    with pytest.raises(SettingsError, match="free some, or take another machine"):
        refuse_large([settings()], D, CPU)
