"""Run by each of the processes of test_processes.py: what a group says of a dictionary that it
shares, against what is true of the whole of it, which every process knows."""

import torch

from cpsae.sae import group_parts
from cpsae.sae.batch_topk import BatchTopKSettings
from cpsae.sae.group import ALONE
from cpsae.sae.kind import RunPlan
from cpsae.sae.kinds import load_kind
from cpsae.training import shared_dictionary
from cpsae.training.processes import joined
from cpsae.workers import Worker

B, M, D = 9, 71, 5


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def own_of(group, whole, dim=-1):
    return whole.movedim(dim, 0)[group.rank :: group.size].movedim(0, dim)


def check_numbers(group):
    held = len(range(group.rank, M, group.size))
    assert group.features(M) == held and group.whole(held) == M
    assert group.share(B) == (0, B) and group.rows(B) == B
    assert [group.features(m) for m in range(4)] == [
        max(0, -(-(m - group.rank) // 3)) for m in range(4)
    ]
    numbers = group.numbers(torch.arange(held))
    assert numbers.tolist() == list(range(group.rank, M, group.size))
    wanted = torch.tensor([0, 1, 7, 30, 31, 70])
    which, here = group.held_of(wanted)
    assert torch.equal(group.numbers(here), wanted[which])
    assert torch.equal(group.all_features(here), wanted)
    assert len(group.all_features(here[:0])) == 0
    assert torch.equal(group.part(wanted.repeat(2)), wanted.repeat(2)[group.rank :: 3])


def check_sums(group):
    whole = random(B, M)
    own = own_of(group, whole).clone().requires_grad_()
    total = group.sum_of_features(own.sum(1))
    torch.testing.assert_close(total, whole.sum(1))
    total.square().sum().backward()
    torch.testing.assert_close(own.grad, 2 * whole.sum(1)[:, None].expand_as(own))
    torch.testing.assert_close(group.mean_of_features(own.detach().T), whole.mean(1))
    torch.testing.assert_close(group.sum_of_features(group.once(whole)), whole)
    half = own.detach().bfloat16().sum(1)
    assert group.sum_of_features(half).dtype == torch.float32
    shared, gradients = torch.arange(3.0), {"w": own.detach(), "b": torch.ones(3) * group.rank}
    combined = group.combined(gradients, {"w", "other"})
    assert torch.equal(combined["w"], own) and torch.equal(combined["b"], torch.full((3,), 3.0))
    norm = group.norm({"w": own.detach(), "b": shared}, {"w"})
    torch.testing.assert_close(norm, (whole.square().sum() + 5.0).sqrt())


def check_softmax(group):
    whole = (random(B, M, seed=2) * 30).requires_grad_()
    own = own_of(group, whole.detach()).clone().requires_grad_()
    expected, found = torch.softmax(whole, 1), group.softmax(own)
    weights = random(B, M, seed=3)
    torch.testing.assert_close(found, own_of(group, expected))
    (expected * weights).sum().backward()
    (found * own_of(group, weights)).sum().backward()
    torch.testing.assert_close(own.grad, own_of(group, whole.grad))
    scores = own.detach().clone()
    assert torch.equal(group.softmax(scores, out=scores), found) and torch.equal(scores, found)


def check_largest(group):
    even = random(B, M, seed=4)
    whole = even + 5 * (torch.arange(M) % 3 == 1)  # most are with one of them
    whole_numbers = whole.round()
    for values in (even, whole, whole_numbers):
        for k in (1, 8, 40, M - 1, M, M + 5):
            own = own_of(group, values).clone().requires_grad_()
            found, features = group.largest_in_rows(own, k)
            kept = torch.zeros_like(own).scatter(1, features, found)
            assert group.count(int((kept != 0).sum())) <= B * k
            lowest = values.sort(descending=True).values[:, : min(k, M)][:, -1:]
            above = own_of(group, values) > lowest
            assert torch.equal(kept[above], own[above])  # of equal ones at the edge some are kept
            total = group.sum_of_features(kept.sum(1))
            torch.testing.assert_close(total, values.sort(descending=True).values[:, :k].sum(1))
            found.sum().backward()
            if values is not whole_numbers:  # where 0 may be one that is kept
                assert torch.equal(own.grad != 0, kept != 0)
    few = even[:, :2] if group.rank == 0 else even[:, :0]
    found, _ = group.largest_in_rows(few, 1)
    torch.testing.assert_close(group.sum_of_features(found.sum(1)), even[:, :2].amax(1))


def check_batch_topk(group):
    """Features whose turn it is come first, then what is largest in the whole batch."""
    settings = BatchTopKSettings(k=3, min_fire_every=1)
    alone, shared = (load_kind("batchtopk")(settings, RunPlan(D, M, steps=100)) for _ in range(2))
    shared.join(group)
    x = random(B, D, seed=5).float()
    w = {"w_enc": random(M, D, seed=6).float(), "b_enc": torch.zeros(M)}
    part = {name: group.part(tensor) for name, tensor in w.items()}
    for updates in (0, 1, 2, 50, 95):
        alone.updates = shared.updates = updates
        whole, own = alone.encode_batch(w, x), shared.encode_batch(part, x)
        assert torch.equal(own.competed != 0, own_of(group, whole.competed) != 0)
        assert own.entries is not None and whole.entries is not None
        assert group.count(len(own.entries)) == len(whole.entries)


def check_files(group):
    """What is handed out and comes back, also where a block is a few rows."""
    for shape, features in (((M, D), 0), ((M,), 0), ((D, M), 1), ((D,), None)):
        whole = random(*shape, seed=7)
        own = whole if features is None else own_of(group, whole, features).contiguous()
        if features != 1:
            filled = torch.zeros_like(own)
            group.hand_out(whole if group.is_leader else None, filled, features == 0)
            assert torch.equal(filled, own)
        blocks = list(group.blocks(own, M, features))
        assert torch.equal(torch.cat(blocks), whole)
        assert torch.equal(torch.cat(list(ALONE.blocks(whole, M, features))), whole)
    if group.is_leader:
        try:
            group.hand_out(random(M, D + 1), torch.zeros(2, D), False)
            raise AssertionError("not refused")
        except ValueError:
            pass
    group.wait()


def main():
    with joined(Worker.from_environment(), "cpu", 2, "features") as group:
        assert group.splits
        for check in (check_numbers, check_sums, check_softmax, check_largest, check_batch_topk):
            check(group)
        for block in (2**24, 40):
            for module in (group_parts, shared_dictionary):
                setattr(module, "BLOCK", block)  # noqa: B010
            check_files(group)


if __name__ == "__main__":
    main()
