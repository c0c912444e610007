"""Run by each of the processes of test_processes.py: what a group says of a batch, against what is
true of the whole of it, which every process knows."""

import math

import torch

from cpsae.errors import SettingsError
from cpsae.sae.batch_topk import BatchTopKSettings
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training.processes import joined
from cpsae.workers import Worker

BATCH, M = 17, 70
"""Odd, so that the shares are not equal; more than the sample of BatchTopK looks at."""


def check_values(group, own):
    whole = torch.randn(BATCH, M, generator=torch.Generator().manual_seed(1)).double()
    rows = whole[own]
    assert group.rows(len(rows)) == group.count(len(rows)) == BATCH
    mean = group.mean({"a": rows.mean(0), "b": rows.mean().float()})
    assert torch.allclose(mean["a"], whole.mean(0), rtol=1e-12)
    assert mean["b"].dtype == torch.float32 and math.isclose(mean["b"], whole.mean(), rel_tol=1e-5)
    assert torch.allclose(group.total(rows.sum(0)), whole.sum(0), rtol=1e-12)
    assert torch.equal(group.maximum(rows.amax(0)), whole.amax(0))
    assert torch.equal(group.maximum((rows > 2).any(0)), (whole > 2).any(0))
    half = whole.bfloat16()
    assert torch.equal(group.maximum(half[own].amax(0)), half.amax(0))
    assert torch.equal(group.gather(rows), whole)
    assert torch.equal(group.gather(half[own]), half)
    assert group.smallest(rows) == whole.min()
    nothing = rows[:0] if group.is_leader else rows
    assert group.smallest(nothing) == whole[BATCH // group.size :].min()


def check_largest(group, own):
    whole = torch.randn(BATCH, M, generator=torch.Generator().manual_seed(2))
    uneven = whole + torch.linspace(0, 4, BATCH)[:, None]  # most of them are in the last rows
    for values in (whole, uneven):
        rows = values[own]
        for count in (1, 40, BATCH * M - 3, BATCH * M):
            chosen = group.largest(rows.flatten(), count)
            wanted = rows.flatten()[rows.flatten() >= values.flatten().sort().values[-count]]
            assert torch.equal(rows.flatten()[chosen].sort().values, wanted.sort().values)


def check_batch_topk(group, own):
    """The features whose turn it is come first, then what is largest in the whole batch."""
    settings = BatchTopKSettings(k=3, min_fire_every=1)
    alone, shared = (load_kind("batchtopk")(settings, RunPlan(8, M, steps=100)) for _ in range(2))
    shared.group = group
    made = torch.Generator().manual_seed(3)
    x = torch.randn(BATCH, 8, generator=made) * torch.linspace(0.1, 3, BATCH)[:, None]
    w = {"w_enc": torch.randn(M, 8, generator=made), "b_enc": torch.zeros(M)}
    for updates in (0, 1, 2, 50, 95):
        alone.updates = shared.updates = updates
        whole, part = alone.encode_batch(w, x), shared.encode_batch(w, x[own])
        assert torch.equal(part.competed != 0, whole.competed[own] != 0)
        assert torch.allclose(part.competed, whole.competed[own], rtol=1e-5)
        assert part.entries is not None and whole.entries is not None
        assert group.count(len(part.entries)) == len(whole.entries)


def check_words(group):
    assert group.told({"a": [1, None, "é"]} if group.is_leader else None) == {"a": [1, None, "é"]}
    assert group.any(group.rank == 1) and not group.any(False)
    assert group.of_leader(torch.tensor([group.rank])).item() == 0
    own = torch.tensor(float(group.rank), requires_grad=True)
    whole = group.batch_mean(own)
    first, end = group.share(BATCH)
    weights = [b - a for a, b in ((BATCH * r // 3, BATCH * (r + 1) // 3) for r in range(3))]
    assert math.isclose(
        whole.item(), sum(r * n for r, n in enumerate(weights)) / BATCH, rel_tol=1e-6
    )
    whole.square().backward()
    assert (
        own.grad is not None
        and torch.isclose(own.grad, 2 * whole.detach())
        and end - first == weights[group.rank]
    )
    group.wait()


def main():
    worker = Worker.from_environment()
    for _ in range(2):  # a second group must not meet the first one's members
        with joined(worker, "cpu", BATCH) as group:
            own = slice(*group.share(BATCH))
            check_values(group, own)
            check_largest(group, own)
            check_batch_topk(group, own)
            check_words(group)
    for device, batch_size in (("cpu", 2), ("cuda:0", BATCH)):
        try:
            with joined(worker, device, batch_size):
                raise AssertionError("not refused")
        except SettingsError:
            pass


if __name__ == "__main__":
    main()
